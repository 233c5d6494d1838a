"""Cancels a handler that runs past its deadline, and tells of one that runs on all the same."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from math import inf
from operator import itemgetter
from typing import TYPE_CHECKING, Protocol

from prosody.model.fields import fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prosody.middleware.base import Call
    from prosody.model.run import Run
    from prosody.observe.storm import Storms
    from prosody.runtime import Runtime

_log = logging.getLogger("prosody.timeout")

_GRACE_SHARE = 0.1
_GRACE_S_MIN = 1.0
"""A cancelled handler may clean up for this share of its timeout, at least so long, before it is told."""
_SHORTEST_WAIT_S = 0.001
"""What rounding leaves of a wait need not move the clock: the sweep would be due at once, for ever."""


class Lane(Protocol):
    """What takes one run after another through the stack."""

    run: Run | None
    """The run that it has now, or had last; None when it idles."""


class Timeout:
    """Sweeps over the lanes, because anything done for each run would cost more than the sweeps.

    All runs have the same limit, and a run's time begins with its permit (``Run.began``), between which
    and its handler it waits for nothing. So what is in no handler at a look at all lanes cannot be due
    before ``timeout_s`` later, when the next look is: a run that begins in between needs no timer, and
    a look finds everything that is due before the next one. One loop timer stands for the earliest
    of those deadlines and the next look. It goes on while lanes have runs, and lanes that begin to take
    some start it (``watch``).

    Lanes are noted, not runs, so that what has ended is not kept alive: a lane and the time of the
    permit are enough to know an attempt again.
    """

    def __init__(self, timeout_s: float, runtime: Runtime, storms: Storms) -> None:
        self._timeout_s = timeout_s
        self._storm = storms.of(_log)
        self._monotonic = runtime.monotonic
        self._grace_s = max(_GRACE_S_MIN, timeout_s * _GRACE_SHARE)
        self._watches = False
        """It is in a stack, and not closed."""
        self.lanes: Callable[[], Iterable[Lane]] = tuple
        """All lanes there are; set by the lanes."""
        self._looked_at = 0.0
        """When all lanes were last looked at; the next look is ``timeout_s`` later."""
        self._noted_until = -inf
        """What got its permit up to then and was cancelled is known; it is not cancelled once more."""
        self._handling: deque[tuple[float, Lane]] = deque()
        """What was in its handler at the last look: when it began, the earliest first."""
        self._cancelled: deque[tuple[float, float, Lane]] = deque()
        """Cancelled at its deadline: when that was, and when it had begun."""
        self._timer: asyncio.TimerHandle | None = None
        self.cancelled = 0
        """Handlers told to stop at their deadline."""

    def wrap(self, inner: Call) -> Call:
        """Answer ``inner``: the layer is there, but it has nothing to do for each run."""
        self._watches = True
        return inner

    def watch(self) -> None:
        """A lane begins to take runs."""
        if self._timer is None and self._watches:
            self._looked_at = self._monotonic()
            self._noted_until = -inf
            self._arm(self._timeout_s)

    def close(self) -> None:
        """Drop the loop timer, for good; the deadlines of runs still going are no longer watched."""
        self._watches = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._handling.clear()
        self._cancelled.clear()

    def _arm(self, delay_s: float) -> None:
        delay_s = max(delay_s, _SHORTEST_WAIT_S)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._sweep)

    def running(self) -> list[Run]:
        """The runs that are in their handlers."""
        return [run for lane in self.lanes() if (run := lane.run) is not None and run.handling]

    def _sweep(self) -> None:
        self._timer = None
        now = self._monotonic()
        self._sweep_handling(now)  # before a look, which only adds what has not been cancelled here
        busy = now < self._looked_at + self._timeout_s or self._look(now)
        waits = [
            w for w in (self._sweep_handling(now), self._sweep_cancelled(now)) if w is not None
        ]
        if busy or waits:
            self._arm(min(*waits, self._looked_at + self._timeout_s - now, self._timeout_s))

    def _look(self, now: float) -> bool:
        """Note what is in its handler and was not at the last look; whether any lane has a run."""
        found = [(lane, lane.run) for lane in self.lanes() if lane.run is not None]
        handling = [
            (run.began, lane)
            for lane, run in found
            # What was in its handler at the last look has been cancelled by now.
            if run.handling and (run.began > self._noted_until or not run.cancelled)
        ]
        self._handling = deque(sorted(handling, key=itemgetter(0)))
        self._looked_at = self._noted_until = now
        return bool(found)

    def _sweep_handling(self, now: float) -> float | None:
        """Cancel what is past its deadline; seconds until the next deadline."""
        while self._handling:
            began, lane = self._handling[0]
            run = _still_handling(lane, began)
            if run is not None:
                wait_s = began + self._timeout_s - now
                if wait_s > 0:
                    return wait_s
                self._cancel(run)
                self._cancelled.append((now, began, lane))
            self._handling.popleft()
        return None

    def _cancel(self, run: Run) -> None:
        self.cancelled += 1
        more = self._storm.allows(logging.WARNING, run)
        if more is not None:
            _log.warning(
                "handler timed out after %.3g s in attempt %d, cancelling it: %s%s",
                self._timeout_s,
                run.attempt,
                run.where(),
                more,
                extra=fields(run),
            )
        run.cancel()

    def _sweep_cancelled(self, now: float) -> float | None:
        """Tell of what runs on although it was cancelled; seconds until the next must have ended."""
        while self._cancelled:
            cancelled_at, began, lane = self._cancelled[0]
            run = _still_handling(lane, began)
            if run is not None:
                wait_s = cancelled_at + self._grace_s - now
                if wait_s > 0:
                    return wait_s
                _log.error(
                    "handler still runs %.3g s after it was cancelled at its timeout (attempt %d), so "
                    "its key and its permit stay taken: %s. Let asyncio.CancelledError pass, and await "
                    "nothing for long while cleaning up",
                    now - cancelled_at,
                    run.attempt,
                    run.where(),
                    extra=fields(run),
                )
            self._cancelled.popleft()
        return None


def _still_handling(lane: Lane, began: float) -> Run | None:
    """The run whose attempt got its permit at ``began``, if it is still in its handler in ``lane``."""
    run = lane.run
    return run if run is not None and run.handling and run.began == began else None
