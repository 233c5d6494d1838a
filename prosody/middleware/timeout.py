"""Cancels a handler that runs past its deadline, and tells of one that runs on all the same."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from prosody.model.outcome import Outcome

if TYPE_CHECKING:
    from prosody.middleware.base import Call
    from prosody.model.run import Run
    from prosody.observe.storm import Storms
    from prosody.runtime import Runtime

_log = logging.getLogger("prosody.timeout")

_GRACE_SHARE = 0.1
_GRACE_S_MIN = 1.0
"""A cancelled handler may clean up for this share of its timeout, at least so long, before it is told."""


class Timeout:
    """One sweep over all running deadlines, because a timer for each run would cost more than the rest.

    All runs have the same limit, so the order in which they began is the order of their deadlines:
    the dicts below, which keep it, are the queues. One loop timer stands for the earliest. A run's time
    begins with its permit (``Run.began``), so nothing is read here.
    """

    def __init__(self, timeout_s: float, runtime: Runtime, storms: Storms) -> None:
        self._timeout_s = timeout_s
        self._storm = storms.of(_log)
        self._monotonic = runtime.monotonic
        self._grace_s = max(_GRACE_S_MIN, timeout_s * _GRACE_SHARE)
        self._running: dict[Run, None] = {}
        self._cancelled: dict[Run, float] = {}
        """Cancelled at their deadline and not ended yet, and when that was."""
        self._timer: asyncio.TimerHandle | None = None

    def wrap(self, inner: Call) -> Call:
        running = self._running
        cancelled = self._cancelled
        timeout_s = self._timeout_s

        async def with_deadline(run: Run) -> Outcome:
            running[run] = None
            if self._timer is None:
                self._arm(timeout_s)
            try:
                return await inner(run)
            finally:
                if running.pop(run, self) is self:
                    cancelled.pop(run, None)

        return with_deadline

    def close(self) -> None:
        """Drop the loop timer; the deadlines of runs still going are no longer watched."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._running.clear()
        self._cancelled.clear()

    def _arm(self, delay_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = self._monotonic()
        waits = [w for w in (self._sweep_running(now), self._sweep_cancelled(now)) if w is not None]
        if waits:
            # Never beyond the deadline of a run that begins now, which finds the timer set.
            self._arm(min(*waits, self._timeout_s))

    def _sweep_running(self, now: float) -> float | None:
        """Cancel what is past its deadline; seconds until the next deadline."""
        while self._running:
            run = next(iter(self._running))
            wait_s = run.began + self._timeout_s - now
            if wait_s > 0:
                return wait_s
            del self._running[run]
            self._cancelled[run] = now
            more = self._storm.allows(logging.WARNING)
            if more is not None:
                _log.warning(
                    "handler timed out after %.3g s in attempt %d, cancelling it: %s%s",
                    self._timeout_s,
                    run.attempt,
                    run.where(),
                    more,
                )
            run.cancel()
        return None

    def _sweep_cancelled(self, now: float) -> float | None:
        """Tell of what runs on although it was cancelled; seconds until the next must have ended."""
        while self._cancelled:
            run, cancelled_at = next(iter(self._cancelled.items()))
            wait_s = cancelled_at + self._grace_s - now
            if wait_s > 0:
                return wait_s
            del self._cancelled[run]
            _log.error(
                "handler still runs %.3g s after it was cancelled at its timeout (attempt %d), so its "
                "key and its permit stay taken: %s. Let asyncio.CancelledError pass, and await nothing "
                "for long while cleaning up",
                now - cancelled_at,
                run.attempt,
                run.where(),
            )
        return None
