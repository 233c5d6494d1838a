"""What a handler's timer calls do, where some timers of its key may be deferred."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.deferral.delays import timer_second
from prosody.model.message import Timer
from prosody.model.times import seconds_from_utc
from prosody.stores.protocol import DeferredKind, TimerKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prosody.deferral.deferrals import Deferrals
    from prosody.deferral.seam import Timers
    from prosody.model.run import Run
    from prosody.runtime import Runtime
    from prosody.stores.protocol import Trace

_LIVE = TimerKind.APPLICATION
_DEFERRED = DeferredKind.TIMER


def _no_trace() -> Trace:
    return {}


class TimerCalls:
    """Timers of one partition as its handlers see them: set ones and deferred ones alike.

    A timer whose handler runs now is no timer any more in its handler's eyes, be it due for the first
    time or deferred. A new timer is always a live one, also while others of its key are deferred: it must
    not run before its time, and when it fires it queues behind them.
    """

    def __init__(
        self,
        timers: Timers,
        deferrals: Deferrals | None,
        runtime: Runtime,
        trace: Callable[[], Trace] = _no_trace,
    ) -> None:
        """:param trace: the W3C headers of the present span, kept with a timer."""
        self._timers = timers
        self._deferrals = deferrals
        self._runtime = runtime
        self._trace = trace

    async def schedule(self, run: Run, time: int) -> None:
        """Set a timer; it is durable when this returns.

        :raises StoreError: it may be set all the same.
        """
        await self._timers.schedule(run.key, time, _LIVE, self._trace())

    async def unschedule(self, run: Run, time: int) -> None:
        """Remove a timer, deferred or not.

        :raises StoreError: it may be removed all the same.
        """
        await self._timers.unschedule(run.key, time, _LIVE)
        if self._has_deferred(run.key) and time != _running(run):
            await self._remove(run, [time])

    async def clear_scheduled(self, run: Run) -> None:
        """Remove all timers, deferred or not.

        :raises StoreError: some may be removed.
        """
        await self._timers.clear(run.key, _LIVE)
        await self._clear_deferred(run)

    async def clear_and_schedule(self, run: Run, time: int) -> None:
        """Set a timer, and remove all others; the new one is durable before any of them is gone.

        :raises StoreError: the new one may be set, some others may be removed.
        """
        await self._timers.replace(run.key, time, _LIVE, self._trace())
        await self._clear_deferred(run)

    async def scheduled(self, run: Run) -> list[int]:
        """The times of all timers, ascending.

        :raises StoreError: it cannot be told.
        """
        times = await self._timers.times(run.key, _LIVE)
        if not self._has_deferred(run.key):
            return times
        deferred = set(await self._positions(run.key))
        deferred.discard(_running(run))
        return sorted(deferred.union(times))

    def _has_deferred(self, key: str) -> bool:
        deferrals = self._deferrals
        return deferrals is not None and deferrals.holds(_DEFERRED, key)

    async def _positions(self, key: str) -> list[int]:
        assert self._deferrals is not None, "asked for where something is deferred"
        return await self._deferrals.positions(_DEFERRED, key)

    async def _clear_deferred(self, run: Run) -> None:
        if self._has_deferred(run.key):
            await self._remove(run, await self._positions(run.key))

    async def _remove(self, run: Run, unwanted: Iterable[int]) -> None:
        """Take deferred timers of the key out; what is retried just now stays until it has ended."""
        deferrals = self._deferrals
        assert deferrals is not None, "asked for where something is deferred"
        key = run.key
        running = _running(run)
        before = await self._positions(key)
        wanted_out = set(unwanted) - {running}
        gone = [time for time in before if time in wanted_out]
        if not gone:
            return
        if len(gone) == len(before):
            await deferrals.drop(_DEFERRED, key)
            return
        left = None
        for time in gone:
            left = await deferrals.advance(_DEFERRED, key, time)
        if left is not None and gone[0] == before[0]:
            # They waited for the head that is gone, perhaps for a day: what is next is to come now.
            at = timer_second(self._runtime.wall(), 0.0)
            await deferrals.retry_at(_DEFERRED, key, at, left.head.trace)


def _running(run: Run) -> int:
    """The time of the timer whose handler runs now; -1 when it is not a timer's."""
    event = run.event
    return seconds_from_utc(event.time) if isinstance(event, Timer) else -1
