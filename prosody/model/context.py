"""What a handler may ask and do besides handling: cancellation and timers."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

from prosody.errors import ContextError

if TYPE_CHECKING:
    import asyncio

    from prosody.model.run import Run

_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime(2106, 2, 7, 6, 28, 15, tzinfo=UTC)
"""Timer times are stored as unsigned 32-bit seconds since 1970."""


class Context:
    """Given to every handler call; belongs to that event and its key.

    After the event has ended (its last attempt, not just this call) ``should_cancel()`` is true,
    ``on_cancel()`` resolves at once and the timer calls raise :class:`~prosody.errors.ContextError`.
    """

    __slots__ = ("_run", "_waiters")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._waiters: list[asyncio.Future[None]] | None = None

    def should_cancel(self) -> bool:
        """Whether this call should stop: its deadline passed, or a shutdown nears its end.

        A shutdown lets running handlers work on; it asks them to stop when 80 % of
        ``shutdown_timeout`` is used up.
        """
        run = self._run
        return run.cancelled or run.finished or run.partition.cancelling

    async def on_cancel(self) -> None:
        """Wait until ``should_cancel()`` is true."""
        if self.should_cancel():
            return
        waiter: asyncio.Future[None] = self._run.partition.loop.create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            with contextlib.suppress(ValueError):  # gone already when it was signalled
                (self._waiters or []).remove(waiter)

    def _signal(self) -> None:
        """Wake whoever waits in ``on_cancel``."""
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    async def schedule(self, time: datetime) -> None:
        """Set a timer for this key: ``on_timer`` is called at ``time``, rounded to whole seconds.

        :param time: an aware datetime between 1970 and 2106; a past one fires at once.
        :raises TypeError: ``time`` is no datetime.
        :raises ValueError: ``time`` has no time zone or is out of range.
        :raises ContextError: timers are not available, or the event has ended.
        """
        self._refuse("schedule", time)

    async def clear_and_schedule(self, time: datetime) -> None:
        """Remove all timers of this key, then set one. Parameters and errors as ``schedule``."""
        self._refuse("clear_and_schedule", time)

    async def unschedule(self, time: datetime) -> None:
        """Remove the timer of this key at ``time``. Parameters and errors as ``schedule``."""
        self._refuse("unschedule", time)

    async def clear_scheduled(self) -> None:
        """Remove all timers of this key.

        :raises ContextError: timers are not available, or the event has ended.
        """
        self._refuse("clear_scheduled")

    async def scheduled(self) -> list[datetime]:
        """The times at which timers of this key are set: aware, UTC, ascending.

        :raises ContextError: timers are not available, or the event has ended.
        """
        self._refuse("scheduled")

    def _refuse(self, call: str, *times: object) -> NoReturn:
        """Check a timer call and say why it is not possible.

        The library has no timer store yet, so every call ends here, with the error that a client
        without a store will go on to give.
        """
        for time in times:
            _check_time(call, time)
        run = self._run
        if run.finished:
            raise ContextError(
                f"context.{call}() after its event has ended ({run.where()}): "
                "await timer calls before the handler returns"
            )
        raise ContextError(
            f"context.{call}(): timers are not available, this client has no timer store"
        )


def _check_time(call: str, time: object) -> None:
    if not isinstance(time, datetime):
        raise TypeError(f"context.{call}() takes an aware datetime, got {time!r}")
    if time.tzinfo is None or time.utcoffset() is None:
        raise ValueError(
            f"context.{call}() takes an aware datetime, got {time!r} without a time zone: "
            "use datetime.now(timezone.utc)"
        )
    if not _FIRST <= time <= _LAST:
        raise ValueError(
            f"context.{call}() takes a time from {_FIRST:%Y-%m-%d} to {_LAST:%Y-%m-%d}, got {time!r}"
        )
