"""What holds of both rolling windows in either half: their type, their memory, who dies when."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import re
import sys
import tracemalloc
import weakref
from typing import Any

import pytest

from tests.core.halves import HALVES
from tests.core.test_rolling_window import half

NAMES = ["TimeWindow", "OutcomeWindow"]


@pytest.fixture(params=[f"{name}-{each}" for each in NAMES for name in HALVES])
def window_type(request: pytest.FixtureRequest) -> Any:
    return half(*request.param.split("-"))


@pytest.fixture(params=list(HALVES))
def window(request: pytest.FixtureRequest) -> Any:
    """A time window of 64 s, with room for 100 keys."""
    return half(request.param, "TimeWindow")(64.0, 100)


class Key:
    """Can be referred to weakly, and may hold something."""

    def __init__(self, holds: Any = None) -> None:
        self.holds = holds


def test_a_class_is_final(window_type: Any) -> None:
    text = f"type '{window_type.__module__}.{window_type.__name__}' is not an acceptable base type"
    with pytest.raises(TypeError, match=re.escape(text)):
        type("Child", (window_type,), {})


@pytest.mark.parametrize(
    "attempt", [copy.copy, copy.deepcopy, pickle.dumps, lambda it: pickle.dumps(it, protocol=0)]
)
def test_live_state_is_neither_copied_nor_pickled(window_type: Any, attempt: Any) -> None:
    text = f"{window_type.__name__} is live state: it can be neither copied nor pickled"
    with pytest.raises(TypeError, match=text):
        attempt(window_type(1.0, 1))


def test_an_object_is_complete_from_birth_and_stays(window_type: Any) -> None:
    bare = window_type.__new__(window_type, 1.0, 1)
    assert repr(bare) == repr(window_type(1.0, 1))
    if window_type.__name__ == "TimeWindow":
        bare.begin("a", 0.0)
    else:
        bare.record(True, 0.0)
    before = repr(bare)
    bare.__init__(5.0, 7)
    assert repr(bare) == before
    bare.check_valid()


def test_it_takes_no_attributes(window_type: Any) -> None:
    it = window_type(1.0, 1)
    for name in ("other", "remembered", "running", "_latest"):
        with pytest.raises(AttributeError):
            setattr(half("cython", window_type.__name__)(1.0, 1), name, 1)
    with pytest.raises(AttributeError):
        it.other = 1


def test_it_can_be_referred_to_weakly_and_dies_at_once(window_type: Any) -> None:
    it = window_type(1.0, 20)
    if window_type.__name__ == "TimeWindow":
        for number in range(100):
            it.begin(number, number / 1_000)
            it.end(number, number / 1_000 + 1e-4)
    reference = weakref.ref(it)
    gc.disable()
    try:
        del it
        assert reference() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("name", NAMES)
def test_the_halves_offer_the_same(name: str) -> None:
    def offered(cls: Any) -> dict[str, Any]:
        return {
            member: (
                tuple(inspect.signature(value).parameters) if callable(value) else "property",
                inspect.getdoc(value),
            )
            for member, value in vars(cls).items()
            if not member.startswith("_")
        }

    compiled, pure = (offered(half(each, name)) for each in HALVES)
    assert compiled == pure


def test_keys_die_when_they_are_forgotten(window: Any) -> None:
    keys = [Key(number) for number in range(300)]
    references = [weakref.ref(key) for key in keys]
    for number, key in enumerate(keys):
        window.begin(key, number / 100)
        window.end(key, number / 100 + 1e-3)
    del key
    while keys:
        keys.pop()
    assert sum(reference() is not None for reference in references) == 100, "those remembered"
    window.used("other", 1_000.0)
    assert [reference() for reference in references] == [None] * 300


def test_references_are_given_back(window: Any) -> None:
    key = Key()
    before = sys.getrefcount(key)
    for number in range(1_000):
        window.begin(key, number * 10.0)
        window.used(key, number * 10.0 + 1)
        window.room_at(key, 0.5, number * 10.0 + 2)
        window.end(key, number * 10.0 + 5)
        with pytest.raises(KeyError):
            window.end(key, 0.0)
    window.used(key, 1e6)
    assert (sys.getrefcount(key), window.remembered) == (before, 0)


def test_cycles_through_the_window_are_collected(window: Any) -> None:
    made = type(window)(64.0, 3)
    keys = [Key(made) for _ in range(6)]
    references = [weakref.ref(made), *map(weakref.ref, keys)]
    for number, key in enumerate(keys):
        made.begin(key, number)
        if number:
            made.end(key, number + 0.5)
    gc.collect()
    made.check_valid()
    del made, keys, key
    gc.collect()
    assert [reference() for reference in references] == [None] * 7


def test_a_key_that_calls_back_while_it_dies_finds_all_in_order(window: Any) -> None:
    seen = []

    class Farewell:
        def __del__(self) -> None:
            window.check_valid()
            window.begin(("last", len(seen)), 0.0)
            seen.append(window.remembered)

    for number in range(101):
        window.begin(key := Farewell(), number / 100)
        window.end(key, number / 100 + 1e-3)
    del key
    assert seen == [101], "one was evicted, and began a run of another"
    window.used("other", 200.0)
    assert len(seen) == 101
    assert (window.remembered, window.running) == (101, 101)
    window.check_valid()


def test_a_key_whose_comparison_fails_changes_nothing(window: Any) -> None:
    class Hostile:
        def __init__(self, *, fails: bool) -> None:
            self.fails = fails

        def __hash__(self) -> int:
            return 7

        def __eq__(self, other: object) -> bool:
            if self.fails or (isinstance(other, Hostile) and other.fails):
                raise RuntimeError("no comparison")
            return self is other

    kind = Hostile(fails=False)
    window.begin(kind, 1.0)
    for method, arguments in [("begin", ()), ("end", ()), ("used", ()), ("room_at", (0.0,))]:
        with pytest.raises(RuntimeError, match="no comparison"):
            getattr(window, method)(Hostile(fails=True), *arguments, 50.0)
    window.check_valid()
    assert window.used(kind, 2.0) == 1.0, "the clock was not moved"


def test_memory_of_a_key_is_fixed_however_many_runs(window: Any) -> None:
    def runs(start: float, count: int) -> None:
        for number in range(count):
            window.begin("hot", start + number * 1e-3)
            window.end("hot", start + number * 1e-3 + 5e-4)

    runs(0.0, 1_000)
    gc.collect()
    tracemalloc.start()
    try:
        runs(10.0, 50_000)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2_000, f"{kept} bytes left behind by 50,000 runs of one key"


def test_nothing_is_kept_of_keys_gone_by(window: Any) -> None:
    def flood(start: int) -> None:
        for number in range(start, start + 20_000):
            key = f"key-{number}"
            window.begin(key, number / 1_000)
            window.used(key, number / 1_000)
            window.end(key, number / 1_000 + 1e-4)
        window.used("", start / 1_000 + 500.0)
        assert window.remembered == 0

    flood(0)  # fills free lists and the like
    gc.collect()
    tracemalloc.start()
    try:
        flood(1_000_000)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 50_000, f"{kept} bytes left behind by 20,000 keys"


@pytest.mark.parametrize("name", list(HALVES))
def test_a_key_costs_half_a_kilobyte(name: str) -> None:
    keys = list(range(1_000_000, 1_008_192))
    gc.collect()
    tracemalloc.start()
    try:
        window = half(name, "TimeWindow")(300.0, 8_192)
        for key in keys:
            window.begin(key, key / 100)
            window.end(key, key / 100 + 1e-3)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert window.remembered == 8_192
    print(f"{name}: {kept / 8_192:.0f} bytes a key")
    assert kept / 8_192 < 1_024
