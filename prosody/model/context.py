"""What a handler may ask and do besides handling: cancellation and timers."""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import TYPE_CHECKING

from prosody.errors import ContextError
from prosody.model.times import LAST_SECOND, seconds_from_utc, utc_from_seconds

if TYPE_CHECKING:
    import asyncio

    from prosody.deferral.timer_calls import TimerCalls
    from prosody.model.run import Run


class Context:
    """Given to every handler call; belongs to that event and its key.

    After the event has ended (its last attempt, not just this call) ``should_cancel()`` is true,
    ``on_cancel()`` resolves at once and the timer calls raise :class:`~prosody.errors.ContextError`.
    """

    __slots__ = ("_over", "_run", "_waiters")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._over = False
        """The event has ended."""
        self._waiters: list[asyncio.Future[None]] | None = None

    def should_cancel(self) -> bool:
        """Whether this call should stop: its deadline passed, or a shutdown nears its end.

        A shutdown lets running handlers work on; it asks them to stop when 80 % of
        ``shutdown_timeout`` is used up.
        """
        run = self._run
        return self._over or run.cancelled or run.partition.cancelling

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

    def _end(self) -> None:
        """The event has ended: ``on_cancel`` resolves, timer calls are refused."""
        self._over = True
        if self._waiters is not None:
            self._signal()

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
        seconds = _seconds("schedule", time)
        await self._timers("schedule").schedule(self._run, seconds)

    async def clear_and_schedule(self, time: datetime) -> None:
        """Remove all timers of this key, then set one. Parameters and errors as ``schedule``."""
        seconds = _seconds("clear_and_schedule", time)
        await self._timers("clear_and_schedule").clear_and_schedule(self._run, seconds)

    async def unschedule(self, time: datetime) -> None:
        """Remove the timer of this key at ``time``. Parameters and errors as ``schedule``."""
        seconds = _seconds("unschedule", time)
        await self._timers("unschedule").unschedule(self._run, seconds)

    async def clear_scheduled(self) -> None:
        """Remove all timers of this key.

        :raises ContextError: timers are not available, or the event has ended.
        """
        await self._timers("clear_scheduled").clear_scheduled(self._run)

    async def scheduled(self) -> list[datetime]:
        """The times at which timers of this key are set: aware, UTC, ascending.

        :raises ContextError: timers are not available, or the event has ended.
        """
        times = await self._timers("scheduled").scheduled(self._run)
        return [utc_from_seconds(time) for time in times]

    def _timers(self, call: str) -> TimerCalls:
        """What performs a timer call.

        :raises ContextError: there is no timer store, the event has ended, or the partition is given up.
        """
        run = self._run
        if self._over:
            raise ContextError(
                f"context.{call}() after its event has ended ({run.where()}): "
                "await timer calls before the handler returns"
            )
        if run.partition.closed:
            raise ContextError(
                f"context.{call}() after its partition was given up ({run.where()}): "
                "whoever has it now runs this event again"
            )
        calls = run.partition.timer_calls
        if calls is None:
            raise ContextError(
                f"context.{call}(): timers are not available, this client has no timer store: set "
                "cassandra_nodes / PROSODY_CASSANDRA_NODES, or use mock mode"
            )
        return calls


def _seconds(call: str, time: object) -> int:
    """A time as whole seconds since 1970, checked."""
    if not isinstance(time, datetime):
        raise TypeError(f"context.{call}() takes an aware datetime, got {time!r}")
    if time.tzinfo is None or time.utcoffset() is None:
        raise ValueError(
            f"context.{call}() takes an aware datetime, got {time!r} without a time zone: "
            "use datetime.now(timezone.utc)"
        )
    seconds = seconds_from_utc(time)
    if not 0 <= seconds <= LAST_SECOND:
        raise ValueError(
            f"context.{call}() takes a time from 1970-01-01 to {utc_from_seconds(LAST_SECOND)}, "
            f"got {time!r}"
        )
    return seconds
