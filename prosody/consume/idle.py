"""What an idle lane waits for: it is woken as by any future, or here and now."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable


class Idle(asyncio.Future[None]):
    """A future for one task that can run the task's next step itself.

    A task that waits leaves a callback behind, and a future has the event loop call it in the next turn. A
    turn costs as much as a handler that only computes, so this one can call it directly. It rests on what
    asyncio asks of anything that behaves like a future, not on how its own are made.
    """

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

    def cancel(self, msg: Any = None) -> bool:
        """As in a future."""
        cancelled = super().cancel(msg)
        self._schedule()
        return cancelled

    def begin(self) -> None:
        """Run the task's next step now, where no other task runs; else wake it as usual."""
        wakeup = self._wakeup
        if wakeup is None or asyncio.current_task(self.get_loop()) is not None:
            self.set_result(None)
            return
        super().set_result(None)
        step, where = wakeup
        where.run(step, self)

    def _schedule(self) -> None:
        wakeup, self._wakeup = self._wakeup, None
        if wakeup is not None:
            step, where = wakeup
            super().add_done_callback(step, context=where)
