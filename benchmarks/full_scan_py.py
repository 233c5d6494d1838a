"""The baseline of the virtual-time heap: the same choice by looking at everything that waits.

It is what the reference implementation does: each waiting task keeps its key's virtual time and when
that was measured, and each selection works out the decay, the boost and the priority of every task.
"""

from __future__ import annotations

from math import exp, inf
from typing import Any

RATE = 0.6931471805599453 / 120.0
MAX_WAIT = 120.0
WAIT_WEIGHT = 200.0


class FullScan:
    """One work class; no more of the heap than ``pop``, ``complete`` and ``push`` of a closed loop."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, float, float, Any]] = []
        self._times: dict[Any, tuple[float, float]] = {}

    def push(self, key: Any, entry: Any, work_class: int, now: float) -> None:
        used, measured = self._times.get(key, (0.0, now))
        self._waiting.append((used, measured, now, entry))

    def pop(self, now: float) -> Any:
        least = inf
        longest = -inf
        chosen = -1
        for at, (used, measured, since, _) in enumerate(self._waiting):
            wait = (now - since) / MAX_WAIT
            if wait > 1.0:  # min would be a call, and slow the baseline down
                wait = 1.0
            priority = used * exp(RATE * (measured - now)) - WAIT_WEIGHT * (wait * wait)
            if priority < least or (priority == least and now - since > longest):
                least, longest, chosen = priority, now - since, at
        waiting = self._waiting
        waiting[chosen], waiting[-1] = waiting[-1], waiting[chosen]
        return waiting.pop()[3]

    def complete(self, key: Any, used: float, now: float) -> None:
        before, measured = self._times.get(key, (0.0, now))
        self._times[key] = (before * exp(RATE * (measured - now)) + used, now)
