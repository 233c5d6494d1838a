"""Which objects are handlers, and what is said of those that are not."""

from __future__ import annotations

from typing import Any

import pytest

from prosody import Context, EventHandler, HandlerTypeError, Message, Timer
from prosody.model.handler import HandlerMethods
from prosody.model.message import utc_from_ms


class Minimal(EventHandler):
    async def on_message(self, context: Context, message: Message) -> None: ...


class Full(Minimal):
    async def on_timer(self, context: Context, timer: Timer) -> None: ...
    async def on_excise(self, context: Context, message: object) -> None: ...


class Duck:
    async def on_message(self, *_: Any) -> None: ...


class Delegating:
    def __getattr__(self, name: str) -> Any:
        if name == "on_message":
            return Duck().on_message
        raise AttributeError(name)


@pytest.mark.parametrize(
    "handler", [Minimal(), Duck(), Delegating()], ids=lambda h: type(h).__name__
)
def test_minimal_handlers(handler: object) -> None:
    methods = HandlerMethods(handler)
    assert methods.name == type(handler).__name__
    assert callable(methods.on_message)
    assert (methods.on_timer, methods.on_excise) == (None, None)


def test_a_full_handler() -> None:
    handler = Full()
    methods = HandlerMethods(handler)
    assert (methods.on_message, methods.on_timer, methods.on_excise) == (
        handler.on_message,
        handler.on_timer,
        handler.on_excise,
    )


class NoMessage:
    async def on_timer(self, *_: Any) -> None: ...


class NotCallable:
    on_message = 42


class NotCallableTimer(Duck):
    on_timer = "later"


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (Duck, r"got the class Duck: write subscribe\(Duck\(\)\)"),
        (NoMessage(), "NoMessage has no on_message"),
        (None, "NoneType has no on_message"),
        (NotCallable(), "NotCallable.on_message must be an async method, got 42"),
        (NotCallableTimer(), "NotCallableTimer.on_timer must be an async method, got 'later'"),
    ],
    ids=["class", "no method", "None", "no callable", "no callable timer"],
)
def test_what_is_no_handler(handler: object, text: str) -> None:
    with pytest.raises(HandlerTypeError, match=text):
        HandlerMethods(handler)


def test_the_base_class_is_abstract() -> None:
    with pytest.raises(TypeError, match="on_message"):
        EventHandler()  # type: ignore[abstract]


async def test_a_timer_without_on_timer_is_told_so() -> None:
    with pytest.raises(HandlerTypeError, match="Minimal has no on_timer"):
        await Minimal().on_timer(None, Timer("k", utc_from_ms(0)))  # type: ignore[arg-type]
