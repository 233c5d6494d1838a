"""Time, chance and identity: the one door through which they reach the library.

Every part is given a :class:`Runtime` and asks it, so that a test or a simulation can run the whole
library on a clock of its own. A rule test fails when another module reads a clock, sleeps, draws a
random number or makes an identifier by itself.

``asyncio.timeout`` and ``loop.call_later`` stay allowed elsewhere: they follow the event loop's clock,
and a simulation brings its own loop. ``monotonic()`` must be that same clock.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from types import coroutine
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable, Generator


class Runtime(Protocol):
    """What the library asks of the outside world besides brokers and stores."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; the event loop's clock."""
        ...

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Wait ``delay_s`` seconds; 0 or less gives way to the loop once."""
        ...

    def random(self) -> float:
        """A number in [0, 1), evenly distributed."""
        ...

    def uuid4(self) -> uuid.UUID:
        """A new random identifier."""
        ...


class SystemRuntime:
    """The real clock, the real dice."""

    # Bound once: a clock is read several times per message.
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    random = staticmethod(random.random)
    uuid4 = staticmethod(uuid.uuid4)

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)


@coroutine
def give_way() -> Generator[None, None, None]:
    """Let the event loop run once: what ``sleep(0)`` does, without its bookkeeping."""
    yield


class OneCall:
    """A function that the event loop calls once for all who ask; at most one call is pending.

    It is for one event loop at a time.
    """

    def __init__(
        self, function: Callable[[], None], context: contextvars.Context | None = None
    ) -> None:
        """
        :param context: the ``contextvars`` that the call has, whoever asks for it; None: those of who asks.
        """
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
