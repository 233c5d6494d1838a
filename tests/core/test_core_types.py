"""What holds of every core class in either half: final, complete from birth, bound to its place."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import re
import weakref
from typing import Any

import pytest

from tests.core.halves import HALVES, STRUCTURES, core_class
from tests.core.vtime import DEFAULTS

# What each class is made with, and a call that leaves a trace in its repr.
ARGUMENTS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "KeyQueue": ((), {}),
    "OffsetTracker": ((), {}),
    "VirtualTimeHeap": ((), DEFAULTS),
    "TimeWindow": ((64.0, 100), {}),
    "OutcomeWindow": ((64.0, 20), {}),
}
TRACES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "KeyQueue": ("push", ("a", 1)),
    "OffsetTracker": ("admit", (0, 0.0)),
    "VirtualTimeHeap": ("push", ("a", 1, 0, 0.0)),
    "TimeWindow": ("begin", ("a", 0.0)),
    "OutcomeWindow": ("record", (True, 0.0)),
}


def made(core_type: Any) -> Any:
    positional, named = ARGUMENTS[core_type.__name__]
    return core_type(*positional, **named)


def used(core_type: Any) -> Any:
    """One that has been used."""
    it = made(core_type)
    method, arguments = TRACES[core_type.__name__]
    getattr(it, method)(*arguments)
    return it


def test_a_class_is_final(core_type: Any) -> None:
    text = f"type '{core_type.__module__}.{core_type.__name__}' is not an acceptable base type"
    with pytest.raises(TypeError, match=re.escape(text)):
        type("Child", (core_type,), {})


@pytest.mark.parametrize(
    "attempt", [copy.copy, copy.deepcopy, pickle.dumps, lambda it: pickle.dumps(it, protocol=0)]
)
def test_live_state_is_neither_copied_nor_pickled(core_type: Any, attempt: Any) -> None:
    text = f"{core_type.__name__} is live state: it can be neither copied nor pickled"
    with pytest.raises(TypeError, match=text):
        attempt(made(core_type))


def test_an_object_is_complete_from_birth(core_type: Any) -> None:
    positional, named = ARGUMENTS[core_type.__name__]
    bare = core_type.__new__(core_type, *positional, **named)
    assert repr(bare) == repr(made(core_type))
    bare.check_valid()


def test_a_second_init_does_not_reset(core_type: Any) -> None:
    it = used(core_type)
    before = repr(it)
    assert before != repr(made(core_type))
    positional, named = ARGUMENTS[core_type.__name__]
    it.__init__(*positional, **named)
    assert repr(it) == before
    it.check_valid()


@pytest.mark.parametrize("half", list(HALVES))
@pytest.mark.parametrize("name", ["KeyQueue", "OffsetTracker"])
@pytest.mark.parametrize("arguments", [(1,), (None, None)])
def test_it_is_made_without_arguments(half: str, name: str, arguments: tuple[Any, ...]) -> None:
    core_type = core_class(half, name)
    text = re.escape(f"{core_type.__name__}() takes no arguments")
    with pytest.raises(TypeError, match=text):
        core_type(*arguments)
    with pytest.raises(TypeError, match=text):
        core_type(size=1)


def test_it_takes_no_attributes(core_type: Any) -> None:
    with pytest.raises(AttributeError):
        made(core_type).other = 1
    for name, member in inspect.getmembers(core_type, inspect.isdatadescriptor):
        if not name.startswith("_"):
            assert not callable(member)
            with pytest.raises(AttributeError):
                setattr(made(core_type), name, 1)


def test_it_can_be_referred_to_weakly_and_dies_at_once(core_type: Any) -> None:
    it = used(core_type)
    reference = weakref.ref(it)
    gc.disable()
    try:
        del it
        assert reference() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("name", list(STRUCTURES))
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

    compiled, pure = (offered(core_class(half, name)) for half in HALVES)
    assert compiled == pure
