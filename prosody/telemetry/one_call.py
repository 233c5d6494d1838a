"""A function that the event loop calls once for all who ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    import contextvars
    from collections.abc import Callable


class OneCall:
    """At most one call of ``function`` is pending. It is for one event loop at a time."""

    def __init__(self, function: Callable[[], None], context: contextvars.Context) -> None:
        """:param context: the ``contextvars`` that the call has, whoever asks for it."""
        self._function = function
        self._context = context
        self._handle: asyncio.Handle | None = None
        self._is_next = False
        """It is pending for the loop's next turn."""

    @property
    def pending(self) -> bool:
        return self._handle is not None

    def soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Call it in the loop's next turn, and not later as well. May be asked for often."""
        if not self._is_next:
            self.cancel()
            self._is_next = True
            self._handle = loop.call_soon(self._call, context=self._context)

    def later(self, loop: asyncio.AbstractEventLoop, delay_s: float) -> None:
        """Call it after ``delay_s`` seconds, whatever was pending."""
        self.cancel()
        self._handle = loop.call_later(delay_s, self._call, context=self._context)

    def cancel(self) -> None:
        """Do not call it."""
        if self._handle is not None:
            self._handle.cancel()
        self._forget()

    def _call(self) -> None:
        self._forget()
        self._function()

    def _forget(self) -> None:
        self._handle = None
        self._is_next = False
