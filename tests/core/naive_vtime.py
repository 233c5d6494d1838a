"""The virtual-time heap as one would explain it: everything in dicts, everything looked at each time.

Sums are made in the order the published text gives, so that answers agree to the bit; what that
text leaves open (the landmark, the estimate, who is forgotten) is written out here once more.
"""

from __future__ import annotations

from math import exp, inf, isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable

LN2 = 0.6931471805599453


class NaiveVirtualTimeHeap:
    def __init__(
        self,
        *,
        failure_weight: float,
        max_wait: float,
        wait_weight: float,
        cache_size: int,
        half_life: float,
    ) -> None:
        self.weights = (1.0 - float(failure_weight), float(failure_weight))
        self.max_wait = float(max_wait)
        self.wait_weight = float(wait_weight)
        self.cache_size = cache_size
        self.half_life = float(half_life)
        self.landmark = self.latest = -inf
        self.debts: dict[Hashable, float] = {}
        self.lines: dict[Hashable, tuple[Any, int, float]] = {}  # in order of arrival
        self.flying: dict[Hashable, tuple[int, float]] = {}  # in order of dispatch
        self.idle: dict[Hashable, None] = {}  # longest idle first
        self.settled = [0.0, 0.0]
        self.estimated = [0.0, 0.0]
        self.mean_run = [0.0, 0.0]
        self.runs = [0, 0]

    def __repr__(self) -> str:
        return (
            f"VirtualTimeHeap(waiting={self.waiting}, dispatched={self.dispatched}, "
            f"remembered={self.remembered})"
        )

    @property
    def waiting(self) -> int:
        return len(self.lines)

    @property
    def dispatched(self) -> int:
        return len(self.flying)

    @property
    def remembered(self) -> int:
        return len(self.debts)

    def push(self, key: Hashable, entry: Any, work_class: int, now: float) -> None:
        if entry is None:
            raise ValueError("push: entry must not be None, which pop answers for 'nothing waits'")
        now = seconds("push: now", now)
        number = class_number("push", work_class)
        for held, status in ((self.lines, "waiting"), (self.flying, "dispatched")):
            if key in held:
                raise ValueError(f"push: key {key!r} has an entry already, which is {status}")
        now = self.advance(now)
        self.idle.pop(key, None)
        self.debts.setdefault(key, 0.0)
        self.lines[key] = (entry, number, now)

    def pop(self, now: float) -> Any:
        now = self.advance(seconds("pop: now", now))
        best: list[tuple[float, Hashable] | None] = [None, None]
        for key, (_, number, _) in self.lines.items():
            mine = self.priority(key, now)
            first = best[number]
            if first is None or mine < first[0]:
                best[number] = (mine, key)
        if best[0] and best[1]:
            score = [
                self.class_time(each, now) / self.weights[each] if self.weights[each] else inf
                for each in (0, 1)
            ]
            chosen = best[1] if score[1] < score[0] else best[0]
        else:
            chosen = best[0] or best[1]
        if chosen is None:
            return None
        entry, number, _ = self.lines.pop(chosen[1])
        charge = self.mean_run[number] * self.power(now, 1.0)
        self.estimated[number] += charge
        self.flying[chosen[1]] = (number, charge)
        return entry

    def complete(self, key: Hashable, used: float, now: float) -> None:
        now = seconds("complete: now", now)
        used = seconds("complete: used", used)
        if used < 0.0:
            raise ValueError(f"complete: used must not be negative, not {used!r}")
        if key not in self.flying:
            raise KeyError(f"complete: nothing of key {key!r} is dispatched")
        now = self.advance(now)
        number = self.land(key)
        used = min(used, 1e9)
        charge = used * self.power(now, 1.0)
        self.settled[number] += charge
        self.runs[number] = min(self.runs[number] + 1, 64)
        self.mean_run[number] += (used - self.mean_run[number]) / self.runs[number]
        self.debts[key] += charge
        self.rest(key)

    def give_back(self, key: Hashable, now: float) -> None:
        now = seconds("give_back: now", now)
        if key not in self.flying:
            raise KeyError(f"give_back: nothing of key {key!r} is dispatched")
        self.advance(now)
        self.land(key)
        self.rest(key)

    def withdraw(self, key: Hashable) -> Any:
        if key not in self.lines:
            raise KeyError(f"withdraw: nothing of key {key!r} waits")
        entry, _, _ = self.lines.pop(key)
        self.rest(key)
        return entry

    def virtual_time(self, key: Hashable, now: float) -> float:
        now = max(seconds("virtual_time: now", now), self.latest)
        return self.debts[key] * self.power(now, -1.0) if key in self.debts else 0.0

    def virtual_times(self, now: float) -> dict[Hashable, float]:
        now = max(seconds("virtual_times: now", now), self.latest)
        return {key: debt * self.power(now, -1.0) for key, debt in self.debts.items()}

    def waiting_since(self) -> dict[Hashable, float]:
        return {key: self.lines[key][2] for key in self.debts if key in self.lines}

    def class_time(self, work_class: int, now: float) -> float:
        now = max(seconds("class_time: now", now), self.latest)
        number = class_number("class_time", work_class)
        return (self.settled[number] + self.estimated[number]) * self.power(now, -1.0)

    def priority(self, key: Hashable, now: float) -> float:
        now = max(seconds("priority: now", now), self.latest)
        if key not in self.lines:
            raise KeyError(f"priority: nothing of key {key!r} waits")
        _, _, since = self.lines[key]
        share = min((now - since) / self.max_wait, 1.0)
        return self.debts[key] * self.power(now, -1.0) - self.wait_weight * (share * share)

    def check_valid(self) -> None:
        pass

    def power(self, now: float, sign: float) -> float:
        """2 to the half-lives since the landmark, or before it."""
        passed = 0.0 if self.half_life == inf else (now - self.landmark) / self.half_life
        return exp(sign * LN2 * passed)

    def advance(self, now: float) -> float:
        if now > self.latest:
            self.latest = now
            if self.half_life != inf and (now - self.landmark) / self.half_life > 512.0:
                factor = self.power(now, -1.0)
                self.debts = {key: debt * factor for key, debt in self.debts.items()}
                self.flying = {
                    key: (n, charge * factor) for key, (n, charge) in self.flying.items()
                }
                self.settled = [each * factor for each in self.settled]
                self.estimated = [each * factor for each in self.estimated]
                self.landmark = now
        return self.latest

    def land(self, key: Hashable) -> int:
        """``key`` is dispatched no longer: its class gets the estimate back."""
        number, charge = self.flying.pop(key)
        left = self.estimated[number] - charge
        others = any(each == number for each, _ in self.flying.values())
        self.estimated[number] = left if others and left > 0.0 else 0.0
        return number

    def rest(self, key: Hashable) -> None:
        if self.debts[key] == 0.0:
            del self.debts[key]
            return
        self.idle[key] = None
        if len(self.idle) > self.cache_size:
            forgotten = min(self.idle, key=lambda each: self.debts[each])  # the first of equals
            del self.idle[forgotten], self.debts[forgotten]


def seconds(what: str, value: float) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"{what} must be a float, not {type(value).__name__}")
    try:
        value = float(value)
    except OverflowError:
        value = inf if value > 0 else -inf
    if not isfinite(value):
        raise ValueError(f"{what} must be finite, not {value!r}")
    return value


def class_number(method: str, work_class: int) -> int:
    if work_class not in (0, 1):
        raise ValueError(
            f"{method}: work_class must be 0 (normal) or 1 (failure), not {work_class!r}"
        )
    return int(work_class)
