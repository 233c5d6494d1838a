"""Objects with slots: what both halves make is what the class itself would have made."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any

import pytest

from prosody.consume import decode, inbox
from prosody.middleware import straight
from prosody.model.context import Context
from prosody.model.message import message_of
from tests.core.halves import HALVES, core_function

if TYPE_CHECKING:
    from collections.abc import Callable


class Base:
    __slots__ = ("first", "never")


class Thing(Base):
    __slots__ = ("__weakref__", "second", "third")

    def __init__(self, first: object, third: object) -> None:
        self.first = first
        self.second = SECOND
        self.third = third


SECOND = ["the same in each"]


def thing(half: str) -> Callable[..., Thing]:
    make: Callable[..., Thing] = core_function(half, "maker")(
        Thing(1, 2), ("first", "third"), Thing
    )
    return make


def slots_of(made: object) -> dict[str, object]:
    names = {name for base in type(made).__mro__ for name in getattr(base, "__slots__", ())}
    return {n: getattr(made, n) for n in names - {"__weakref__"} if hasattr(made, n)}


@pytest.mark.parametrize("half", HALVES)
def test_what_it_makes_is_an_object_of_the_class(half: str) -> None:
    make = thing(half)
    one, two = make("a", None), make([], 3)
    assert type(one) is type(two) is Thing
    assert slots_of(one) == {"first": "a", "second": SECOND, "third": None}
    assert slots_of(two) == {"first": [], "second": SECOND, "third": 3}
    assert one.second is SECOND
    with pytest.raises(AttributeError):
        one.never  # noqa: B018
    two.first = two  # type: ignore[assignment]
    assert gc.is_tracked(two)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("values", [(), (1,), (1, 2, 3)])
def test_another_number_of_values_is_refused(half: str, values: tuple[int, ...]) -> None:
    with pytest.raises(TypeError):
        thing(half)(*values)


def test_references_are_counted() -> None:
    make, value = thing("cython"), object()
    before = sys.getrefcount(value), sys.getrefcount(SECOND), sys.getrefcount(Thing)
    made = [make(value, value) for _ in range(10)]
    assert sys.getrefcount(value) == before[0] + 20
    assert sys.getrefcount(SECOND) == before[1] + 10
    made.clear()
    assert (sys.getrefcount(value), sys.getrefcount(SECOND), sys.getrefcount(Thing)) == before


def test_what_leads_back_to_itself_is_collected() -> None:
    class Noted(Thing):
        __slots__ = ()

        def __del__(self) -> None:
            ended.append(self.third)

    ended: list[object] = []
    made = core_function("cython", "maker")(Noted(1, 2), ("first", "third"), Noted)(None, 7)
    ended.clear()
    made.first = made
    del made
    gc.collect()
    assert ended == [7]


class WithDict(Thing):
    pass


class WithMembers(BaseException):
    __slots__ = ("own",)


@pytest.mark.parametrize(
    ("example", "names"),
    [
        (WithDict(1, 2), ("first",)),
        (Thing(1, 2), ("first", "fourth")),
        (Thing(1, 2), ("__weakref__",)),
        (WithMembers(), ("own",)),
        (3, ("real",)),
    ],
    ids=["a dict", "no such slot", "a weakref", "members in C", "no slots"],
)
def test_a_class_without_such_slots_is_refused(example: Any, names: tuple[str, ...]) -> None:
    with pytest.raises(TypeError, match="slots alone"):
        core_function("cython", "maker")(example, names, type(example))


class Holder:
    number = 3


@pytest.mark.parametrize(
    ("make", "plain", "values"),
    [
        (decode.make_message, message_of, ("orders", 2, 7, 1_001, "k", {"a": 1})),
        (inbox.make_run, inbox.run_of, (Holder(), object(), "k", object(), (3, "k"))),
        (straight.make_context, Context, (object(),)),
    ],
    ids=["message", "run", "context"],
)
def test_what_messages_need_is_as_their_classes_make_it(
    make: Callable[..., object], plain: Callable[..., object], values: tuple[object, ...]
) -> None:
    made, expected = make(*values), plain(*values)
    assert type(made) is type(expected)
    assert slots_of(made) == slots_of(expected)
    assert slots_of(made)
