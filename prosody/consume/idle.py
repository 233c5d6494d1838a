"""What an idle lane waits for: it is woken as by any future, or here and now, or works while it waits."""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable

    from prosody.consume.steps import Measured


class Idle(asyncio.Future[None]):
    """A future for the task of one lane that can run the task's next step itself.

    A task that waits leaves a callback behind, and a future has the event loop call it in the next turn. A
    turn costs as much as a handler that only computes, so this one can call it directly. It rests on what
    asyncio asks of anything that behaves like a future, not on how its own are made.

    And the task can go on waiting while something is done in its place (``within``), for which it is the
    current one, in its own context variables: what waits for nothing need not wake it.
    """

    def __init__(self, lane: Measured, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.lane = lane

    _wakeup: tuple[Callable[..., object], contextvars.Context] | None = None
    """The step of the task that waits, and its context variables."""

    def add_done_callback(
        self, fn: Callable[..., object], /, *, context: contextvars.Context | None = None
    ) -> None:
        """As in a future."""
        if self._wakeup is None and context is not None and not self.done():
            self._wakeup = fn, context
        else:
            super().add_done_callback(fn, context=context)

    def set_result(self, result: None) -> None:
        """Wake the task in the loop's next turn."""
        super().set_result(result)
        self._schedule()

    def set_exception(self, exception: type | BaseException) -> None:
        """As in a future."""
        super().set_exception(exception)
        self._schedule()

    def cancel(self, msg: Any = None) -> bool:
        """As in a future."""
        cancelled = super().cancel(msg)
        self._schedule()
        return cancelled

    def within(self, step: Callable[[Measured], Any]) -> bool:
        """Have the lane make a step while its task waits, and note in ``Measured.rest`` what is left of it.

        False: it cannot be, because another task runs now, or this one does not wait yet.
        """
        lane, loop, wakeup = self.lane, self.get_loop(), self._wakeup
        if wakeup is None or lane.task is None:
            return False
        try:
            _enter_task(loop, lane.task)
        except RuntimeError:
            return False  # asyncio's word for another one that runs now
        try:
            lane.rest = wakeup[1].run(lane.measure, step, lane)
        finally:
            _leave_task(loop, lane.task)
        return True

    def begin(self) -> None:
        """Run the task's next step now. No other task may be running, and this one has to wait."""
        assert self._wakeup is not None, "the task of an idle lane waits for it"
        super().set_result(None)
        step, where = self._wakeup
        where.run(step, self)

    def _schedule(self) -> None:
        wakeup, self._wakeup = self._wakeup, None
        if wakeup is not None:
            step, where = wakeup
            super().add_done_callback(step, context=where)
