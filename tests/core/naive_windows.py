"""The rolling windows as one would explain them: every run and outcome is kept for good.

Where a time lies, in buckets and ticks, is computed as in the halves, so that answers must be the
same to the bit. ``exact_used`` and ``exact_counts`` know nothing of buckets: fractions of seconds.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor, inf, isfinite, ulp
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable

TICKS = 2**31  # of a bucket
FOREVER = 2**200


class NaiveClock:
    """The latest ``now``, and where it lies: ``at`` counts ticks from time 0."""

    def __init__(self, window: float) -> None:
        self.window = float(window)
        self.width = self.window / 64
        self.latest = -inf
        self.at = 0

    @property
    def bucket(self) -> int:
        return self.at // TICKS

    def place(self, now: float) -> int:
        bucket = floor(now / self.width)
        tick = int((now - bucket * self.width) / self.width * TICKS)
        return bucket * TICKS + min(max(tick, 0), TICKS - 1)

    def checked(self, method: str, now: Any) -> float:
        if type(now) not in (int, float):
            raise TypeError(f"{method}: now must be a float, not {type(now).__name__}")
        seconds = to_float(now)
        farthest = self.width * 2**50
        if not isfinite(seconds):
            raise ValueError(f"{method}: now must be finite, not {seconds}")
        if abs(seconds) > farthest:
            raise ValueError(
                f"{method}: now must lie between {-farthest} and {farthest} "
                f"for a window of {self.window} s, not {seconds}"
            )
        return seconds

    def move(self, now: float) -> None:
        if now > self.latest:
            self.latest = now
            self.at = self.place(now)


class NaiveTimeWindow(NaiveClock):
    def __init__(self, window: float, cache_size: int) -> None:
        super().__init__(window)
        self.cache_size = cache_size
        self.recent = min(cache_size // 8, 1_024)
        self.runs: dict[Hashable, list[tuple[int, int]]] = {}
        self.began: dict[Hashable, int] = {}
        self.numbers: dict[Hashable, int] = {}
        self.ends = 0
        # For exact_used only: the times themselves.
        self.times: dict[Hashable, list[tuple[float, float]]] = {}
        self.began_time: dict[Hashable, float] = {}

    def __repr__(self) -> str:
        return (
            f"TimeWindow(window={self.window}, cache_size={self.cache_size}, "
            f"remembered={self.remembered}, running={self.running})"
        )

    @property
    def remembered(self) -> int:
        return len(self.runs)

    @property
    def running(self) -> int:
        return len(self.began)

    def begin(self, key: Hashable, now: float) -> None:
        now = self.checked("begin", now)
        if key in self.began:
            raise ValueError(f"begin: a run of key {key!r} is in progress already")
        self.advance(now)
        self.began[key] = self.at
        self.began_time[key] = self.latest
        self.runs.setdefault(key, [])
        self.times.setdefault(key, [])

    def end(self, key: Hashable, now: float) -> None:
        now = self.checked("end", now)
        if key not in self.began:
            raise KeyError(f"end: nothing of key {key!r} runs")
        self.advance(now)
        self.runs[key].append((self.began.pop(key), self.at))
        self.times[key].append((self.began_time.pop(key), self.latest))
        self.forget_unused()
        if key not in self.runs:
            return
        self.ends += 1
        self.numbers[key] = self.ends
        idle = [each for each in self.runs if each not in self.began]
        if len(idle) > self.cache_size:
            old = [each for each in idle if self.numbers[each] <= self.ends - self.recent]
            self.forget(min(old, key=lambda each: (self.touched(each), self.numbers[each])))

    def used(self, key: Hashable, now: float) -> float:
        now = self.checked("used", now)
        hash(key)
        self.advance(now)
        return self.ticks_at(key, self.at) * (self.window / (64 * TICKS))

    def room_at(self, key: Hashable, limit: float, now: float) -> float:
        if type(limit) not in (int, float):
            raise TypeError(f"room_at: limit must be a float, not {type(limit).__name__}")
        limit = to_float(limit)
        if not limit >= 0:
            raise ValueError(f"room_at: limit must be 0 or more seconds, not {limit}")
        now = self.checked("room_at", now)
        hash(key)
        self.advance(now)

        def fits(at: int) -> bool:
            return self.ticks_at(key, at) * (self.window / (64 * TICKS)) <= limit

        low, high = self.at - 1, self.at + 65 * TICKS
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if middle >= self.at and fits(middle) else (middle, high)
        return self.latest if high == self.at else self.time_of(high)

    def time_of(self, at: int) -> float:
        bucket, tick = divmod(at, TICKS)
        time = bucket * self.width + tick / TICKS * self.width
        step = ulp(max(abs(time), self.width))
        while self.place(time) < at:
            time += step
            step *= 2
        return time

    def advance(self, now: float) -> None:
        self.move(now)
        self.forget_unused()

    def forget_unused(self) -> None:
        for key in list(self.runs):
            if key not in self.began and not self.touched(key):
                self.forget(key)

    def forget(self, key: Hashable) -> None:
        del self.runs[key], self.times[key]
        self.numbers.pop(key, None)

    def touched(self, key: Hashable) -> int:
        """Ticks of ended runs in the buckets that the window touches."""
        return overlap(self.runs[key], (self.bucket - 64) * TICKS, FOREVER)

    def ticks_at(self, key: Hashable, at: int) -> int:
        """Ticks that count at ``at``, if nothing runs from now on."""
        runs = list(self.runs.get(key, []))
        if key in self.began:
            runs.append((self.began[key], self.at))
        bucket, tick = divmod(at, TICKS)
        part = overlap(runs, (bucket - 64) * TICKS, (bucket - 63) * TICKS)
        return overlap(runs, (bucket - 63) * TICKS, FOREVER) + min(part, TICKS - tick)

    def exact_used(self, key: Hashable) -> Fraction:
        """Seconds used of what is remembered of ``key``, without buckets, ticks or rounding."""
        if self.latest == -inf:
            return Fraction(0)
        now = Fraction(self.latest)
        start = now - Fraction(self.window)
        runs = list(self.times.get(key, []))
        if key in self.began:
            runs.append((self.began_time[key], self.latest))
        pieces = (Fraction(end) - max(start, Fraction(begin)) for begin, end in runs)
        return sum((piece for piece in pieces if piece > 0), Fraction(0))

    def check_valid(self) -> None:
        pass


class NaiveOutcomeWindow(NaiveClock):
    def __init__(self, window: float, minimum: int) -> None:
        super().__init__(window)
        self.minimum = minimum
        self.outcomes: list[tuple[int, float, bool]] = []

    def __repr__(self) -> str:
        successes, failures = self.in_buckets()
        return (
            f"OutcomeWindow(window={self.window}, minimum={self.minimum}, "
            f"successes={successes}, failures={failures})"
        )

    def record(self, failed: bool, now: float) -> None:
        if type(failed) is not bool:
            raise TypeError(f"record: failed must be a bool, not {type(failed).__name__}")
        self.move(self.checked("record", now))
        self.outcomes.append((self.bucket, self.latest, failed))

    def counts(self, now: float) -> tuple[int, int]:
        self.move(self.checked("counts", now))
        return self.in_buckets()

    def failure_rate(self, now: float) -> float | None:
        self.move(self.checked("failure_rate", now))
        successes, failures = self.in_buckets()
        outcomes = successes + failures
        return None if outcomes < self.minimum else failures / outcomes

    def in_buckets(self) -> tuple[int, int]:
        inside = [failed for bucket, _, failed in self.outcomes if bucket > self.bucket - 64]
        return inside.count(False), inside.count(True)

    def exact_counts(self, seconds: Fraction) -> tuple[int, int]:
        """Successes and failures of the last ``seconds``."""
        if self.latest == -inf:
            return 0, 0
        start = Fraction(self.latest) - seconds
        inside = [failed for _, time, failed in self.outcomes if Fraction(time) > start]
        return inside.count(False), inside.count(True)

    def check_valid(self) -> None:
        pass


def overlap(runs: list[tuple[int, int]], start: int, end: int) -> int:
    return sum(max(0, min(stop, end) - max(begin, start)) for begin, stop in runs)


def to_float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return inf if number > 0 else -inf
