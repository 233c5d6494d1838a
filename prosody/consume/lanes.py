"""Reused worker tasks: a lane takes the run whose turn it is through the stack, then the next.

A task for each message would cost ten times what eight nested awaits in a reused one do. A lane that
waits (in the handler, in a backoff, for a permit of a later attempt) is just a waiting lane: another one
takes over, woken by the first one as it begins to wait. So one lane is enough where handlers never do.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING, Any, Final

from prosody.consume.idle import Idle
from prosody.consume.steps import Measured
from prosody.model.outcome import SUCCESS
from prosody.runtime import give_way

if TYPE_CHECKING:
    from collections.abc import Callable

    from prosody.consume.steps import Steps
    from prosody.middleware.stacks import Stack
    from prosody.model.outcome import Outcome
    from prosody.model.run import Run

_log = logging.getLogger("prosody.lanes")

_TURN_S = 0.005
"""How long lanes may go from run to run before the event loop gets a turn."""

_RETIRE: Final = object()
"""The run has left traces in its lane."""
_GIVE_WAY: Final = object()
"""The event loop must have a turn."""


async def _raised(error: BaseException) -> Outcome:
    raise error


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
        """They are all here: go on with that lane, without a turn of the event loop in between.

        As long as handlers wait for nothing, its task stays asleep.
        """
        self._held = False
        idle, self._next = self._next, None
        if idle is None or idle.done():
            return
        try:
            made = idle.within(self._begin)
        except BaseException as error:  # noqa: BLE001  # the lane ends with it, as if it had met it itself
            if not idle.done():
                idle.set_exception(error)
            return
        if idle.done():
            return  # a handler has cancelled the task that it ran in
        if not made:
            idle.set_result(None)
        elif idle.lane.rest is not None or self._closed:
            idle.begin()
        else:
            idle.lane.run = None
            self._idle.append(idle)

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

    async def _lane(self, lane: Measured, run: Run | None) -> None:
        lane.task = asyncio.current_task()
        rest = self._begin(lane, run)
        outcome: Outcome | None = None
        while True:
            if rest is None:
                lane.run = run = outcome = None  # what an idle lane holds on to stays in memory
                if self._closed or len(self._idle) >= self._idle_max:
                    return
                rest = await self._wait_for_work(lane)
                continue
            if rest is _RETIRE:
                self._retire()
                return
            if rest is _GIVE_WAY:
                await give_way()
                self._turn_ends = lane.began + _TURN_S
                rest = self._serve(lane)
                continue
            run = lane.run
            assert run is not None, "it is what the rest is of"
            try:
                outcome = await rest
            except asyncio.CancelledError as error:
                self._cancelled(run, error)
                raise
            except BaseException as error:
                # The stack promises not to raise: this is a fault of the library's own. The
                # partition starts again from its committed offset, so nothing is lost.
                run.partition.fail(run, error)
                self._retire()
                if not isinstance(error, Exception):
                    raise  # meant for the process
                return
            rest = self._serve(lane, run, outcome)

    def _serve(  # noqa: C901, PLR0912  # a call for each part would cost every message
        self, lane: Measured, run: Run | None = None, outcome: Outcome | None = None
    ) -> Any:
        """Take run after run through the stack, until there is something to wait for: what is left.

        The lane's task is the current one. None: nothing is left. Else ``_RETIRE``, ``_GIVE_WAY``, or what
        to await for the outcome of ``lane.run``, and another lane is woken if there is more.

        :param run: the first one, if it is not to be taken.
        :param outcome: its outcome, if it has one: it is to be finished.
        """
        scheduler, call, task = self._scheduler, self._stack.call, lane.task
        take = scheduler.take
        context, copy_context = self._context, contextvars.copy_context
        woken, scheduler.woken = scheduler.woken, True  # whatever comes meanwhile is this lane's
        try:
            while True:
                if outcome is None:
                    if run is None:
                        run = take()
                        if run is None:
                            return None
                    partition = run.partition
                    fresh = run.task is None
                    run.task = task
                    if fresh:
                        partition.waiting -= 1
                        if not partition.waiting:
                            partition.admit()
                    lane.run = run
                    try:
                        rest: Any = call(run)
                    except BaseException as error:  # noqa: BLE001  # the lane has it raised again
                        rest = _raised(error)
                    if rest is not SUCCESS:
                        break
                    outcome = SUCCESS
                assert run is not None, "it has an outcome"
                try:
                    run.partition.finish(run, outcome)
                except BaseException as error:  # noqa: BLE001  # likewise
                    rest = _raised(error)
                    break
                try:
                    # Whether the run left something in the lane's context variables.
                    differs = copy_context() != context
                except Exception:  # noqa: BLE001
                    differs = True  # it cannot be compared: better a new lane than a leak
                if differs or task.cancelling():  # type: ignore[union-attr]  # it is running
                    return _RETIRE
                if scheduler.latest >= self._turn_ends and self._turn_is_over(lane):
                    return _GIVE_WAY
                run = outcome = None
        finally:
            scheduler.woken = woken
        if scheduler.has_more:
            self.wake()
        return rest

    def _begin(self, lane: Measured, run: Run | None = None) -> Any:
        """This lane takes runs from now on; see ``_serve``."""
        self._scheduler.woken = False
        self._timeout.watch()
        return self._serve(lane, run)

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

    async def _wait_for_work(self, lane: Measured) -> Any:
        """Idle until there is some; what is left of it, as of ``_serve``."""
        idle = Idle(lane, self._loop)
        self._idle.append(idle)
        try:
            await idle
        except asyncio.CancelledError as error:
            if lane.rest is None:
                if idle in self._idle:
                    self._idle.remove(idle)
                raise
            # A handler that ran in the place of this task has cancelled it. That strikes where the task
            # waits next, as it would have done without the wait here.
            task = lane.task
            assert task is not None
            task.uncancel()
            task.cancel(*error.args)
        rest, lane.rest = lane.rest, None
        return self._begin(lane) if rest is None else rest

    def _retire(self) -> None:
        """This lane ends, because a run left traces in it; another goes on."""
        if self._scheduler.has_more:
            self.wake()
