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
    from collections.abc import Generator


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
