"""What holds of both rolling windows in either half: their type, their memory, who dies when."""

from __future__ import annotations

import gc
import math
import sys
import tracemalloc
import weakref
from functools import partial
from typing import Any

import pytest

from tests.core.halves import HALVES, core_class
from tests.core.hostile import Hostile

NAMES = ["TimeWindow", "OutcomeWindow"]


@pytest.fixture(params=[f"{name}-{each}" for each in NAMES for name in HALVES])
def window_type(request: pytest.FixtureRequest) -> Any:
    return core_class(*request.param.split("-"))


@pytest.fixture(params=list(HALVES))
def window(request: pytest.FixtureRequest) -> Any:
    """A time window of 64 s, with room for 100 keys."""
    return core_class(request.param, "TimeWindow")(64.0, 100)


class Key:
    """Can be referred to weakly, and may hold something."""

    def __init__(self, holds: Any = None) -> None:
        self.holds = holds


def test_a_time_just_beyond_the_farthest_is_refused(window_type: Any) -> None:
    """Also where it lies in the same bucket as the farthest one."""
    window = window_type(1e-6, 1)
    ask = partial(window.record, True) if hasattr(window, "record") else partial(window.used, "a")
    farthest = 1e-6 / 64 * 2**50
    ask(farthest)
    ask(farthest)
    with pytest.raises(ValueError, match="must lie between"):
        ask(math.nextafter(farthest, math.inf))


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
        window = core_class(name, "TimeWindow")(300.0, 8_192)
        for key in keys:
            window.begin(key, key / 100)
            window.end(key, key / 100 + 1e-3)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert window.remembered == 8_192
    print(f"{name}: {kept / 8_192:.0f} bytes a key")
    assert kept / 8_192 < 1_024
