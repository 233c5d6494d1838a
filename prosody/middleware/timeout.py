"""Cancels a handler that runs past its deadline."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from prosody.model.outcome import Outcome

if TYPE_CHECKING:
    from prosody.middleware.base import Call
    from prosody.model.run import Run
    from prosody.runtime import Runtime

_log = logging.getLogger("prosody.timeout")


class Timeout:
    """One sweep over all running deadlines, because a timer for each run would cost more than the rest.

    All runs have the same limit, so the order in which they began is the order of their deadlines:
    the dict below, which keeps it, is the queue. One loop timer stands for the earliest.
    """

    def __init__(self, timeout_s: float, runtime: Runtime) -> None:
        self._timeout_s = timeout_s
        self._monotonic = runtime.monotonic
        self._running: dict[Run, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def wrap(self, inner: Call) -> Call:
        running = self._running
        monotonic = self._monotonic
        timeout_s = self._timeout_s

        async def with_deadline(run: Run) -> Outcome:
            run.deadline = monotonic() + timeout_s
            running[run] = None
            if self._timer is None:
                self._arm(timeout_s)
            try:
                return await inner(run)
            finally:
                running.pop(run, None)

        return with_deadline

    def close(self) -> None:
        """Drop the loop timer; the deadlines of runs still going are no longer watched."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._running.clear()

    def _arm(self, delay_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = self._monotonic()
        while self._running:
            run = next(iter(self._running))
            if run.deadline > now:
                self._arm(run.deadline - now)
                return
            del self._running[run]
            _log.warning(
                "handler timed out after %.3g s in attempt %d, cancelling it: %s",
                self._timeout_s,
                run.attempt,
                run.where(),
            )
            run.cancel()
