"""The user's handler: what it may look like, and how it is looked over at ``subscribe``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from prosody.errors import HandlerTypeError

if TYPE_CHECKING:
    from prosody.model.context import Context
    from prosody.model.message import Message, Timer

HandlerMethod = Callable[[Any, Any], Awaitable[Any]]


class EventHandler(ABC):
    """Base class for handlers. Any object with the same methods will do as well.

    The methods run on the event loop that called ``subscribe``. They may be cancelled at any time:
    let ``asyncio.CancelledError`` pass, and clean up in ``finally``. What they return is ignored; an
    exception means failure (see :class:`~prosody.errors.PermanentError`).
    """

    @abstractmethod
    async def on_message(self, context: Context, message: Message) -> None:
        """Handle one message."""

    async def on_timer(self, context: Context, timer: Timer) -> None:
        """Handle one timer that has fired. Needed only by handlers that schedule timers."""
        raise HandlerTypeError(
            f"a timer fired for key {timer.key!r}, but {type(self).__name__} has no on_timer"
        )

    # on_excise(context, message: ExciseMessage) is optional too, and deliberately absent here:
    # without it, records that have no value are skipped.


class HandlerMethods:
    """The methods of a handler, looked up once."""

    __slots__ = ("name", "on_excise", "on_message", "on_timer")

    def __init__(self, handler: object) -> None:
        """Look a handler over.

        :raises HandlerTypeError: when ``on_message`` is missing or a method cannot be called.
        """
        if isinstance(handler, type):
            raise HandlerTypeError(
                f"subscribe takes a handler object, got the class {handler.__name__}: "
                f"write subscribe({handler.__name__}())"
            )
        self.name = type(handler).__name__
        found: dict[str, HandlerMethod | None] = {}
        for method in ("on_message", "on_timer", "on_excise"):
            attribute = getattr(handler, method, None)
            if attribute is None:
                found[method] = None
            elif callable(attribute):
                found[method] = attribute
            else:
                raise HandlerTypeError(
                    f"{self.name}.{method} must be an async method, got {attribute!r}"
                )
        if found["on_message"] is None:
            raise HandlerTypeError(
                f"{self.name} has no on_message: a handler needs "
                "'async def on_message(self, context, message)'"
            )
        if getattr(type(handler), "on_timer", None) is EventHandler.on_timer:
            found["on_timer"] = None
        self.on_message: HandlerMethod = found["on_message"]
        self.on_timer = found["on_timer"]
        self.on_excise = found["on_excise"]
