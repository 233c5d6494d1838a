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
        attempt(core_type())


def test_an_object_is_complete_from_birth(core_type: Any) -> None:
    bare = core_type.__new__(core_type)
    assert repr(bare) == repr(core_type())
    bare.check_valid()


def test_a_second_init_does_not_reset(core_type: Any) -> None:
    it = core_type()
    if core_type.__name__ == "KeyQueue":
        it.push("a", 1)
    else:
        it.admit(0, 0.0)
    before = repr(it)
    it.__init__()
    assert repr(it) == before
    it.check_valid()


@pytest.mark.parametrize("arguments", [(1,), (None, None)])
def test_it_is_made_without_arguments(core_type: Any, arguments: tuple[Any, ...]) -> None:
    text = re.escape(f"{core_type.__name__}() takes no arguments")
    with pytest.raises(TypeError, match=text):
        core_type(*arguments)
    with pytest.raises(TypeError, match=text):
        core_type(size=1)


def test_it_takes_no_attributes(core_type: Any) -> None:
    with pytest.raises(AttributeError):
        core_type().other = 1
    for name, member in inspect.getmembers(core_type, inspect.isdatadescriptor):
        if not name.startswith("_"):
            assert not callable(member)
            with pytest.raises(AttributeError):
                setattr(core_type(), name, 1)


def test_it_can_be_referred_to_weakly_and_dies_at_once(core_type: Any) -> None:
    it = core_type()
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
