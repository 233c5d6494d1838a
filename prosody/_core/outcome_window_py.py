"""The outcome window in pure Python: the twin of ``outcome_window_c.pyx``."""

from __future__ import annotations

from typing import Any, NoReturn, Self, final

from prosody._core.constants import BUCKETS
from prosody._core.window_clock_py import WindowClock, count, require, two_arguments, window_seconds


@final
class OutcomeWindow(WindowClock):
    """Successes and failures over a sliding window; see ``protocols_qos.OutcomeWindow``.

    The bucket of ``now`` and the 63 before it count. So nothing older than ``window`` ever counts,
    and what is missing are at most the outcomes of one bucket, the oldest in the window.

    ``now`` never goes back: one below the latest of any call counts as that. A ``now`` more than
    2**50 buckets from time 0 is refused. Memory is fixed; cost is O(1).
    """

    __slots__ = ("_failures", "_minimum", "_of_failures", "_of_successes", "_successes")

    _failures: int
    _minimum: int
    _of_failures: list[int]
    _of_successes: list[int]
    _successes: int

    def __new__(cls, *arguments: Any, **named: Any) -> Self:
        window, minimum = two_arguments("OutcomeWindow", "window", "minimum", arguments, named)
        seconds = window_seconds("OutcomeWindow", window)
        outcomes = count("OutcomeWindow", "minimum", minimum)
        self = object.__new__(cls)
        self._set_clock(seconds)
        self._minimum = outcomes
        self._of_successes = [0] * BUCKETS
        self._of_failures = [0] * BUCKETS
        self._successes = 0
        self._failures = 0
        return self

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError(f"type '{__name__}.OutcomeWindow' is not an acceptable base type")

    def __reduce__(self) -> NoReturn:
        raise TypeError("an OutcomeWindow is live state: it can be neither copied nor pickled")

    def __repr__(self) -> str:
        return (
            f"OutcomeWindow(window={self._window!r}, minimum={self._minimum}, "
            f"successes={self._successes}, failures={self._failures})"
        )

    def record(self, failed: bool, now: float) -> None:
        """One outcome, at ``now`` (seconds).

        :raises TypeError: when ``failed`` is no bool, or ``now`` no float or int.
        :raises ValueError: when ``now`` is not finite or too far from 0.
        """
        if type(failed) is not bool:
            raise TypeError(f"record: failed must be a bool, not {type(failed).__name__}")
        if type(now) is not float or not self._since <= now <= self._until:
            self._move(self._checked("record", now))
        elif now > self._latest:
            self._latest = now
        if failed:
            self._of_failures[self._bucket % BUCKETS] += 1
            self._failures += 1
        else:
            self._of_successes[self._bucket % BUCKETS] += 1
            self._successes += 1

    def counts(self, now: float) -> tuple[int, int]:
        """Successes and failures in the window: never too many, at most a bucket's too few.

        :raises TypeError: when ``now`` is no float or int.
        :raises ValueError: when ``now`` is not finite or too far from 0.
        """
        self._move(self._checked("counts", now))
        return self._successes, self._failures

    def failure_rate(self, now: float) -> float | None:
        """Failures as a share of all outcomes; None below the minimum sample.

        :raises TypeError: when ``now`` is no float or int.
        :raises ValueError: when ``now`` is not finite or too far from 0.
        """
        self._move(self._checked("failure_rate", now))
        outcomes = self._successes + self._failures
        if outcomes < self._minimum:
            return None
        return self._failures / outcomes

    def check_valid(self) -> None:
        """Assert the invariants; for tests.

        :raises AssertionError: when one does not hold.
        """
        require(sum(self._of_successes) == self._successes, "successes do not add up")
        require(sum(self._of_failures) == self._failures, "failures do not add up")
        require(min(self._of_successes + self._of_failures) >= 0, "a count below zero")

    def _move(self, now: float) -> None:
        if now <= self._latest:
            return
        self._latest = now
        bucket = self._bucket_of(now)
        for new in range(self._bucket + 1, min(bucket, self._bucket + BUCKETS) + 1):
            place = new % BUCKETS
            self._successes -= self._of_successes[place]
            self._failures -= self._of_failures[place]
            self._of_successes[place] = self._of_failures[place] = 0
        self._enter(bucket)
