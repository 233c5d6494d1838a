"""Who runs next, and how many at once: permits, granted in the order of a virtual-time heap.

::

    key ready ──enqueue──▶ heap ──take (a permit is free)──▶ lane ──▶ stack ──▶ handler
                            ▲                                           │ end: charged, permit back
                            └────────── a later attempt waits ──────────┘

A first attempt waits in the heap alone, without a lane: a lane takes it together with its permit. Only a
later attempt, which has a lane already, waits in it. A run that waits for anything but its handler holds
no permit: whoever makes it wait gives the permit back first.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from prosody._core import VirtualTimeHeap
from prosody.model.outcome import ABANDONED, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from prosody._core.protocols_qos import TimeWindow
    from prosody.config.options_qos import SchedulerOptions
    from prosody.middleware.base import Call
    from prosody.model.run import Run
    from prosody.runtime import Runtime

HALF_LIFE_S: Final = 120.0
"""Handler time charged to a key counts half after so long."""


def _nobody() -> None:
    """There are no lanes yet."""


class Scheduler:
    """``max_concurrency`` permits across all partitions of a consumer.

    A run is charged to its partition and key, and to its work class, when its handler has ended and
    before anything else of the key can wait. What is charged is the time from the permit to that end.
    """

    def __init__(
        self,
        limit: int,
        options: SchedulerOptions,
        runtime: Runtime,
        meter: TimeWindow | None = None,
    ) -> None:
        """:param meter: is told of each run too, when it begins and ends."""
        self._limit = limit
        self.free = limit
        """Permits that nobody holds."""
        self.heap = VirtualTimeHeap(
            failure_weight=options.scheduler_failure_weight,
            max_wait=options.scheduler_max_wait,
            wait_weight=options.scheduler_wait_weight,
            cache_size=options.scheduler_cache_size,
            half_life=HALF_LIFE_S,
        )
        self.push = self.heap.push
        """Puts a run among those that wait; ``enqueue`` does it, and wakes a lane."""
        self._pop = self.heap.pop
        self._charge = self.heap.complete
        self.monotonic = runtime.monotonic
        self.meter_begin: Callable[[Hashable, float], None] | None = None
        """To be told of a run just before its handler is called; None when nobody wants to know."""
        self.meter_end: Callable[[Hashable, float], None] | None = None
        if meter is not None:
            self.meter_begin, self.meter_end = meter.begin, meter.end
        self._looking = False
        """A look is due at the next turn of the loop."""
        self.wake: Callable[[], None] = _nobody
        """Has one more lane call ``take``; set by the lanes."""
        self.woken = False
        """A lane has been woken and has not run yet, or is taking run after run; kept by the lanes, and
        asked here to spare calls."""
        self.latest = 0.0
        """The time that was read last."""
        self.note: Callable[[Run, float, Outcome | None], None] | None = None
        """Told of each attempt how long it took and how it ended, while somebody measures."""

    @property
    def limit(self) -> int:
        """Permits there are."""
        return self._limit

    @property
    def in_use(self) -> int:
        """Permits held."""
        return self._limit - self.free

    @property
    def waiting(self) -> int:
        """Runs that wait for a permit."""
        return self.heap.waiting

    @property
    def has_more(self) -> bool:
        """Whether ``take`` would find something."""
        return bool(self.free) and self.heap.waiting > 0

    def class_time(self, work_class: int, now: float) -> float:
        """Seconds of handler time that a class has used lately."""
        return self.heap.class_time(work_class, now)

    def awaited_by(self, run: Run) -> bool:
        """Whether ``run`` waits for a permit."""
        if run.permit or run.handling:
            return False
        try:
            self.heap.priority(run.place, self.monotonic())
        except KeyError:
            return False  # that is the answer
        return True

    def handler_times(self) -> Mapping[Hashable, float]:
        """Seconds of handler time of runs that have ended, by ``Run.place``; each counts half after
        ``HALF_LIFE_S``. For the keys that are remembered, and goes through all of them."""
        return self.heap.virtual_times(self.monotonic())

    def waiting_since(self) -> Mapping[Hashable, float]:
        """What waits for a permit, by ``Run.place``, and since when."""
        return self.heap.waiting_since()

    # Called by partitions and lanes

    def enqueue(self, run: Run, now: float) -> None:
        """Let a run wait that no lane has yet."""
        self.push(run.place, run, run.work_class, now)
        if self.free and not self.woken:
            self.wake()

    def take(self) -> Run | None:
        """The run whose turn it is, with a permit, for a lane to take; None when there is none.

        Permits are granted on the way to runs that wait in a lane of their own. There may be more.
        """
        while self.free:
            self.latest = now = self.monotonic()
            run: Run | None = self._pop(now)
            if run is None:
                return None
            self.free -= 1
            run.permit = True
            run.began = now
            if run.task is None:
                return run
            waiting = run.interruptible
            # One that was interrupted in this very turn gives the permit back when it notices.
            if waiting is not None and not waiting.done():
                waiting.set_result(True)
        return None

    def give_back(self, run: Run) -> None:
        """Take back what ``run`` has, a permit or a place among the waiting; nothing is charged."""
        if run.permit:
            run.permit = False
            self.heap.give_back(run.place, self.monotonic())
            self.free += 1
            self.look_soon()
        else:
            self.heap.withdraw(run.place)

    # The layer

    def wrap(self, inner: Call) -> Call:
        begin = self.meter_begin

        async def with_permit(run: Run) -> Outcome:
            if not run.permit and not await self._wait(run):
                return ABANDONED
            outcome = None
            try:
                if begin is not None:
                    begin(run.place, run.began)
                outcome = await inner(run)
                return outcome
            finally:
                self.ended(run, outcome)

        return with_permit

    def ended(self, run: Run, outcome: Outcome | None) -> float:
        """The handler has ended: charge the run, take its permit back. Answers the time.

        :param outcome: None when something that is not the handler's own ended it.
        """
        self.latest = now = self.monotonic()
        run.permit = False
        used_s = now - run.began
        if used_s < 0.0:  # noqa: PLR1730  # max is a call
            used_s = 0.0
        self._charge(run.place, used_s, now)
        if self.meter_end is not None:
            self.meter_end(run.place, now)
        self.free += 1
        self.look_soon()
        if self.note is not None:
            self.note(run, used_s, outcome)
        return now

    async def _wait(self, run: Run) -> bool:
        """Wait for a permit; False when a shutdown came first, and no permit is held."""
        now = self.monotonic()
        self.heap.push(run.place, run, run.work_class, now)
        if self.free:
            if self.heap.waiting == 1:
                self.heap.pop(now)
                self.free -= 1
                run.permit = True
                run.began = now
                return True
            self.wake()
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        run.interruptible = future
        try:
            granted = await future
        except asyncio.CancelledError:
            self.give_back(run)
            raise
        finally:
            run.interruptible = None
        if not granted or not run.partition.running:
            # The second: granted in the very turn in which the partition was given up.
            self.give_back(run)
            return False
        run.began = self.monotonic()
        return True

    def look_soon(self) -> None:
        """A permit came back: do others wait?

        The lane that ends a run takes the next one itself, at once, unless it goes on to wait for
        something else: then another one has to, and this look wakes it.
        """
        if self._looking or not self.heap.waiting:
            return
        self._looking = True
        asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._looking = False
        if self.has_more:
            self.wake()
