"""Handlers, slots and keys in simulated time, around a virtual-time heap; no clock, no waiting.

In a closed loop a key is pushed again in the very moment in which its run ends, so that it is
backlogged all the time. ``after`` lets a simulation push other keys instead, or as well.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

NORMAL, FAILURE = 0, 1

DEFAULTS: dict[str, Any] = {
    "failure_weight": 0.3,
    "max_wait": 120.0,
    "wait_weight": 200.0,
    "cache_size": 8192,
    "half_life": 120.0,
}
PLAIN: dict[str, Any] = {**DEFAULTS, "wait_weight": 0.0, "half_life": float("inf")}
"""Neither boost nor decay: virtual time alone."""


class Run(NamedTuple):
    key: Hashable
    work_class: int
    pushed: float
    begin: float
    end: float
    """As planned: a run that goes on when the simulation ends has its end beyond it."""
    given_back: bool


class Simulation:
    """Runs in the order of their beginning, and what still waits at ``until``."""

    def __init__(
        self,
        heap: Any,
        *,
        slots: int,
        until: float,
        first: Iterable[tuple[Hashable, int]],
        lasts: Callable[[Hashable], float],
        after: Callable[[Hashable, int, float], Iterable[tuple[Hashable, int]]] | None = None,
        gives_back: Callable[[Hashable], bool] | None = None,
    ) -> None:
        self.heap = heap
        self.until = until
        self.runs: list[Run] = []
        self.waiting: dict[Hashable, tuple[int, float]] = {}
        self.waiting_most = 0
        ends: list[tuple[float, int, Run]] = []
        now = 0.0
        free = slots
        self._push(first, now)
        while True:
            while free and (key := heap.pop(now)) is not None:
                work_class, pushed = self.waiting.pop(key)
                back = gives_back is not None and gives_back(key)
                end = now + (0.001 if back else lasts(key))
                run = Run(key, work_class, pushed, now, end, back)
                self.runs.append(run)
                heapq.heappush(ends, (end, len(self.runs), run))
                free -= 1
            now, _, run = heapq.heappop(ends)
            if now > until:
                return
            if run.given_back:
                heap.give_back(run.key, now)
            else:
                heap.complete(run.key, run.end - run.begin, now)
            free += 1
            if after is None:
                self._push([(run.key, run.work_class)], now)
            else:
                self._push(after(run.key, run.work_class, now), now)

    def _push(self, pushes: Iterable[tuple[Hashable, int]], now: float) -> None:
        for key, work_class in pushes:
            self.heap.push(key, key, work_class, now)
            self.waiting[key] = (work_class, now)
        self.waiting_most = max(self.waiting_most, len(self.waiting))

    def waits(self) -> list[float]:
        """How long each run waited, and what waits still has so far."""
        left = [self.until - pushed for _, pushed in self.waiting.values()]
        return [run.begin - run.pushed for run in self.runs] + left

    def served(self, wanted: Callable[[Run], bool]) -> list[tuple[float, float]]:
        """Beginning and end of the runs wanted, cut at ``until``; those given back never ran."""
        return [
            (run.begin, min(run.end, self.until))
            for run in self.runs
            if wanted(run) and not run.given_back
        ]

    def longest(self, wanted: Callable[[Run], bool]) -> float:
        return max((run.end - run.begin for run in self.runs if wanted(run)), default=0.0)


def widest_gap(
    ups: list[tuple[float, float]],
    downs: list[tuple[float, float]],
    *,
    up: float = 1.0,
    down: float = 1.0,
    allowance: float = 0.0,
) -> float:
    """Over all intervals: by how much the services differ, less ``allowance`` for each second.

    A service is the time of its runs that falls into the interval, times its factor. The difference
    is a line with bends where a run begins or ends, so that bends are all that need be looked at.
    """
    slopes: list[tuple[float, float]] = []
    for runs, factor in ((ups, up), (downs, -down)):
        for begin, end in runs:
            slopes.append((begin, factor))
            slopes.append((end, -factor))
    slopes.sort()
    slope = difference = now = 0.0
    lowest = highest = 0.0
    widest = 0.0
    for when, change in slopes:
        difference += slope * (when - now)
        now = when
        slope += change
        over, under = difference - allowance * now, difference + allowance * now
        lowest, highest = min(lowest, over), max(highest, under)
        widest = max(widest, over - lowest, highest - under)
    return widest
