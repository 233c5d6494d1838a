"""The scheduler's place in the stack: no handler runs without one of ``max_concurrency`` permits.

This one serves waiting runs in the order in which they came. A fair scheduler can take its place
behind the same layer: it only has to order the waiting differently.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from prosody.model.outcome import ABANDONED, Outcome

if TYPE_CHECKING:
    from prosody.middleware.base import Call
    from prosody.model.run import Run


class Permits:
    """``max_concurrency`` permits across all partitions of a consumer, first come, first served."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = limit
        self._waiting: deque[tuple[Run, asyncio.Future[bool]]] = deque()

    @property
    def in_use(self) -> int:
        """Permits held by running handlers."""
        return self._limit - self._free

    @property
    def waiting(self) -> int:
        """Runs that wait for a permit."""
        return sum(not future.done() for _, future in self._waiting)

    def awaited_by(self, run: Run) -> bool:
        """Whether ``run`` waits for a permit; looks through all that do, for logs."""
        return any(waiting is run and not future.done() for waiting, future in self._waiting)

    def wrap(self, inner: Call) -> Call:
        async def with_permit(run: Run) -> Outcome:
            if self._free:
                self._free -= 1
            elif not await self._wait(run):
                return ABANDONED
            try:
                return await inner(run)
            finally:
                self._release()

        return with_permit

    async def _wait(self, run: Run) -> bool:
        """Wait for a permit; False when a shutdown ended the wait and no permit is held."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((run, future))
        run.interruptible = future
        run.partition.permit_waits += 1
        try:
            granted = await future
        except asyncio.CancelledError:
            # The permit may have been granted in the very turn of the cancellation: pass it on.
            if future.done() and not future.cancelled() and future.result():
                self._release()
            raise
        finally:
            run.interruptible = None
            run.partition.permit_waits -= 1
            run.partition.wake_lane()
        if granted and not run.partition.running:
            # Granted in the very turn in which the partition was given up: nothing more starts.
            self._release()
            return False
        return granted

    def _release(self) -> None:
        """Hand the permit to the longest waiting run that still waits, or keep it."""
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_result(True)
                return
        self._free += 1
