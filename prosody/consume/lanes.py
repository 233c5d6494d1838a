"""Reused worker tasks: a lane takes the head of a key queue through the stack, then the next.

A task for each message would cost ten times what eight nested awaits in a reused one do. A lane
that waits (for a permit, in a backoff, in the handler) is just a waiting lane: another takes over the
queue. At any moment at most one lane has been woken and not yet run, so waking costs nothing when
handlers never wait.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

from prosody.consume.steps import Measured
from prosody.runtime import give_way

if TYPE_CHECKING:
    from prosody.consume.partition import Partition, Shared
    from prosody.model.run import Run

_IDLE_MAX = 64
"""Lanes kept waiting for work in one partition; more than that end."""

_TURN_S = 0.005
"""How long lanes may go from run to run before the event loop gets a turn."""


class Lanes:
    """The lanes of one partition. They grow with what is admitted, and end when idle or closed."""

    def __init__(self, partition: Partition, shared: Shared) -> None:
        self._partition = partition
        self._shared = shared
        self._call = shared.stack.call
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.Future[None]] = []
        self._waking = False
        """A lane has been woken and has not run yet."""
        self._turn_ends = 0.0

    def wake(self) -> None:
        """Have one more lane look at the queue, unless one waits for a permit.

        Without a permit another lane could only wait beside it. It wakes one itself when it has its
        own, so there are about as many lanes as permits, however many keys are ready.
        """
        if self._waking or self._partition.permit_waits:
            return
        self._waking = True
        while self._idle:
            idle = self._idle.pop()
            if not idle.done():
                idle.set_result(None)
                return
        self._grow()

    def close(self) -> None:
        """End idle lanes; busy ones end with their run."""
        idle, self._idle = self._idle, []
        for waiting in idle:
            if not waiting.done():
                waiting.set_result(None)

    def _grow(self, run: Run | None = None) -> None:
        """One more lane; it begins with ``run``, if one is given."""
        lane = Measured(self._shared.steps)
        task = self._shared.loop.create_task(
            lane.drive(self._lane(lane, run)),
            name="prosody-lane",
            context=self._shared.context.copy(),
        )
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        partition = self._partition
        if task.cancelled():
            # A handler can keep its task and cancel it later, when the lane idles or gives way. The
            # wake-up that the lane may have been given goes to another one.
            if partition.running and not self._shared.torn_down():
                self._waking = False
                self._retire()
        elif isinstance(error := task.exception(), Exception):
            partition.fault(error)  # does nothing if it was reported where it arose

    async def _lane(self, lane: Measured, handed: Run | None) -> None:
        partition = self._partition
        queue = partition.queue
        pop = queue.pop
        runs = partition.runs
        call = self._call
        monotonic = self._shared.runtime.monotonic
        task = asyncio.current_task()
        assert task is not None
        self._waking = False
        while True:
            run = pop() if handed is None else handed
            handed = None
            if run is None:
                lane.run = None  # what an idle lane holds on to stays in memory
                partition.admit()
                if queue.ready:
                    continue
                if partition.closed or not partition.running or len(self._idle) >= _IDLE_MAX:
                    return
                await self._wait_for_work()
                continue
            if not queue.ready:
                # Room may have appeared while this key's entries were the only ones ready.
                partition.admit()
            if queue.ready:
                self.wake()
            runs.add(run)
            run.task = task
            lane.run = run
            try:
                outcome = await call(run)
            except asyncio.CancelledError as error:
                self._cancelled(run, error)
                raise
            except BaseException as error:
                # The stack promises not to raise: this is a fault of the library's own. The
                # partition starts again from its committed offset, so nothing is lost.
                partition.fail(run, error)
                raise
            partition.finish(run, outcome)
            if task.cancelling() or self._differs():
                self._retire()
                return
            if monotonic() >= self._turn_ends:
                await give_way()
                self._turn_ends = monotonic() + _TURN_S

    def _cancelled(self, run: Run, error: asyncio.CancelledError) -> None:
        """The lane was cancelled while ``run`` was between attempts: waiting, or about to."""
        if self._partition.running and not self._shared.torn_down():
            # A handler set this off and ended before it struck. Nobody asked for the end of the run,
            # so it goes on, in a lane that is not cancelled.
            self._grow(run)
        else:
            self._partition.fail(run, error)  # nothing of this run is committed

    async def _wait_for_work(self) -> None:
        idle: asyncio.Future[None] = self._shared.loop.create_future()
        self._idle.append(idle)
        try:
            await idle
        except asyncio.CancelledError:
            if idle in self._idle:
                self._idle.remove(idle)
            raise
        self._waking = False

    def _differs(self) -> bool:
        """Whether the last run left something in the lane's context variables."""
        try:
            return contextvars.copy_context() != self._shared.context
        except Exception:  # noqa: BLE001
            return True  # a value that cannot be compared: better a new lane than a leak

    def _retire(self) -> None:
        """This lane ends, because a run left traces in it; another goes on."""
        self._partition.admit()
        if self._partition.queue.ready:
            self.wake()
