"""Reused worker tasks: a lane takes the run whose turn it is through the stack, then the next.

A task for each message would cost ten times what eight nested awaits in a reused one do. A lane that
waits (in the handler, in a backoff, for a permit of a later attempt) is just a waiting lane: another one
takes over. At any moment at most one lane has been woken and not yet run, so waking costs nothing when
handlers never wait.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING

from prosody.consume.idle import Idle
from prosody.consume.steps import Measured
from prosody.model.outcome import SUCCESS
from prosody.runtime import give_way

if TYPE_CHECKING:
    from collections.abc import Callable

    from prosody.consume.steps import Steps
    from prosody.middleware.stacks import Stack
    from prosody.model.run import Run

_log = logging.getLogger("prosody.lanes")

_TURN_S = 0.005
"""How long lanes may go from run to run before the event loop gets a turn."""


class Lanes:
    """The lanes of one subscription: as many as permits, and one for each run that waits elsewhere.

    They grow when something waits and a permit is free, and end when idle or closed.
    """

    def __init__(
        self,
        stack: Stack,
        steps: Steps,
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context,
        idle_max: int,
        torn_down: Callable[[], bool],
    ) -> None:
        """
        :param context: the ``contextvars`` as they were at ``subscribe``; each lane starts from a copy.
        :param idle_max: lanes kept waiting for work; more than that end.
        """
        self._stack = stack
        self._scheduler = stack.scheduler
        self._steps = steps
        self._loop = loop
        self._context = context
        self._idle_max = idle_max
        self._torn_down = torn_down
        self._tasks: dict[asyncio.Task[None], Measured] = {}
        self._idle: list[Idle] = []
        self._held = False
        """Between ``hold`` and ``begin``."""
        self._next: Idle | None = None
        """The lane that goes on with ``begin``."""
        self._closed = False
        self._turn_ends = 0.0
        self._timeout = stack.timeout
        stack.scheduler.wake = self.wake
        stack.timeout.lanes = self._tasks.values

    def wake(self) -> None:
        """Have one more lane look whether something waits and a permit is free."""
        if self._scheduler.woken:
            return
        self._scheduler.woken = True
        while self._idle:
            idle = self._idle.pop()
            if not idle.done():
                if self._held:
                    self._next = idle
                else:
                    idle.set_result(None)
                return
        self._grow()

    def hold(self) -> None:
        """Records come together: let a lane that is woken wait for ``begin``, which follows in this very
        turn of the event loop."""
        self._held = True

    def begin(self) -> None:
        """They are all here: go on with that lane, without a turn of the event loop in between."""
        self._held = False
        idle, self._next = self._next, None
        if idle is not None and not idle.done():
            idle.begin()

    def close(self) -> None:
        """End idle lanes; busy ones end with their run."""
        self._closed = True
        idle, self._idle = self._idle, []
        for waiting in idle:
            if not waiting.done():
                waiting.set_result(None)

    def _grow(self, run: Run | None = None) -> None:
        """One more lane; it begins with ``run``, if one is given."""
        lane = Measured(self._steps)
        task = self._loop.create_task(
            lane.drive(self._lane(lane, run)), name="prosody-lane", context=self._context.copy()
        )
        self._tasks[task] = lane
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task).run = None  # perhaps noted by the timeout's sweep
        if task.cancelled():
            # A handler can keep its task and cancel it later, when the lane idles or gives way. The
            # wake-up that the lane may have been given goes to another one.
            if not self._torn_down():
                self._scheduler.woken = False
                self._retire()
        elif isinstance(error := task.exception(), Exception):
            # A fault of ours outside any run: there is no partition to start again.
            _log.critical("internal fault in a lane; please report this", exc_info=error)

    async def _lane(  # noqa: C901  # a call for each part would cost every message
        self, lane: Measured, handed: Run | None
    ) -> None:
        scheduler = self._scheduler
        take = scheduler.take
        call = self._stack.call
        context, copy_context = self._context, contextvars.copy_context
        task = asyncio.current_task()
        assert task is not None
        self._begin()
        run = take() if handed is None else handed
        while True:
            if run is None:
                lane.run = None  # what an idle lane holds on to stays in memory
                if self._closed or len(self._idle) >= self._idle_max:
                    return
                await self._wait_for_work()
                run = take()
                continue
            partition = run.partition
            fresh = run.task is None
            run.task = task
            if fresh:
                partition.waiting -= 1
                if not partition.waiting:
                    partition.admit()
            lane.run = run
            try:
                outcome = call(run)
                if outcome is not SUCCESS:
                    outcome = await outcome  # type: ignore[misc]  # only that one comes itself
                partition.finish(run, outcome)
            except asyncio.CancelledError as error:
                self._cancelled(run, error)
                raise
            except BaseException as error:
                # The stack promises not to raise: this is a fault of the library's own. The
                # partition starts again from its committed offset, so nothing is lost.
                partition.fail(run, error)
                self._retire()
                if not isinstance(error, Exception):
                    raise  # meant for the process
                return
            try:
                # Whether the run left something in the lane's context variables.
                differs = copy_context() != context
            except Exception:  # noqa: BLE001
                differs = True  # a value that cannot be compared: better a new lane than a leak
            if differs or task.cancelling():
                self._retire()
                return
            if scheduler.latest >= self._turn_ends and self._turn_is_over(lane):
                await give_way()
                self._turn_ends = lane.began + _TURN_S
            run = take()

    def _begin(self) -> None:
        """This lane takes runs from now on."""
        self._scheduler.woken = False
        self._timeout.watch()

    def _turn_is_over(self, lane: Measured) -> bool:
        """Whether lanes have gone on for so long that the loop must have a turn."""
        if lane.began >= self._turn_ends:
            # It has had one since: the lane has just come back from a wait.
            self._turn_ends = lane.began + _TURN_S
        return self._scheduler.latest >= self._turn_ends

    def _cancelled(self, run: Run, error: asyncio.CancelledError) -> None:
        """The lane was cancelled while ``run`` was between attempts: waiting, or about to."""
        if run.partition.running and not self._torn_down():
            # A handler set this off and ended before it struck. Nobody asked for the end of the run,
            # so it goes on, in a lane that is not cancelled.
            self._grow(run)
        else:
            run.partition.fail(run, error)  # nothing of this run is committed

    async def _wait_for_work(self) -> None:
        idle = Idle(loop=self._loop)
        self._idle.append(idle)
        try:
            await idle
        except asyncio.CancelledError:
            if idle in self._idle:
                self._idle.remove(idle)
            raise
        self._begin()

    def _retire(self) -> None:
        """This lane ends, because a run left traces in it; another goes on."""
        if self._scheduler.has_more:
            self.wake()
