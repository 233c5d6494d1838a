"""What both rolling windows are made with: where ``now`` lies, and what they refuse.

Time is cut into buckets of ``window / 64`` seconds, numbered from time 0, and a bucket into 2**31
ticks. Both are whole numbers: sums are exact, and floats come in only where seconds do.
"""

from __future__ import annotations

from math import floor, inf, ulp
from typing import Any

from prosody._core.constants import (
    BUCKET_TICKS,
    BUCKETS,
    FARTHEST_BUCKET,
    MAX_COUNT,
    MAX_WINDOW_S,
    MIN_WINDOW_S,
    WINDOW_TICKS,
)


class WindowClock:
    """Where ``now`` lies in buckets and ticks. It never goes back.

    A time from ``_since`` to ``_until`` is not refused, and lies in no later bucket, for sure: then
    nothing is to be done but to note it. Its tick is found when it is asked for.
    """

    __slots__ = (
        "__weakref__",
        "_bucket",
        "_farthest",
        "_latest",
        "_since",
        "_start",
        "_unit",
        "_until",
        "_width",
        "_window",
    )

    _bucket: int
    _farthest: float
    _latest: float
    _since: float
    _start: float
    _unit: float
    _until: float
    _width: float
    _window: float

    def _set_clock(self, window: float) -> None:
        self._window = window
        self._width = window / BUCKETS
        self._farthest = self._width * FARTHEST_BUCKET
        self._latest = -inf
        self._unit = window / WINDOW_TICKS
        self._since = -self._farthest
        self._until = -inf
        self._bucket = 0
        self._start = 0.0

    def _enter(self, bucket: int) -> None:
        """The latest time lies in this bucket."""
        self._bucket = bucket
        self._start = bucket * self._width
        until = (bucket + 1) * self._width
        step = ulp(max(abs(until), self._width))
        while floor(until / self._width) > bucket:
            until -= step
            step += step
        self._until = min(until, self._farthest)

    def _tick(self) -> int:
        """The tick of the latest time."""
        tick = int((self._latest - self._start) / self._width * BUCKET_TICKS)
        if 0 <= tick < BUCKET_TICKS:
            return tick
        # The quotients are rounded, so the tick may come out just outside the bucket.
        return 0 if tick < 0 else BUCKET_TICKS - 1

    def _checked(self, method: str, now: Any) -> float:
        """``now`` as a float, or the refusal; the clock is not moved yet."""
        if type(now) is not float:
            if type(now) is not int:
                raise TypeError(f"{method}: now must be a float, not {type(now).__name__}")
            now = to_float(now)
        seconds: float = now
        if not -self._farthest <= seconds <= self._farthest:
            if not -inf < seconds < inf:
                raise ValueError(f"{method}: now must be finite, not {seconds!r}")
            raise ValueError(
                f"{method}: now must lie between {-self._farthest!r} and {self._farthest!r} "
                f"for a window of {self._window!r} s, not {seconds!r}"
            )
        return seconds

    def _bucket_of(self, now: float) -> int:
        return floor(now / self._width)

    def _located(self, now: float) -> tuple[int, int]:
        """The bucket and the tick of ``now``: a later time never lies in an earlier place."""
        bucket = self._bucket_of(now)
        tick = int((now - bucket * self._width) / self._width * BUCKET_TICKS)
        return bucket, min(max(tick, 0), BUCKET_TICKS - 1)

    def _reached(self, bucket: int, tick: int) -> float:
        """A time that lies at ``tick`` of ``bucket`` or, by float spacing, just behind it."""
        now = bucket * self._width + tick / BUCKET_TICKS * self._width
        step = ulp(max(abs(now), self._width))
        while self._located(now) < (bucket, tick):
            now += step
            step += step
        return now


def two_arguments(
    name: str, first: str, second: str, arguments: tuple[Any, ...], named: dict[str, Any]
) -> list[Any]:
    # By hand, so that both halves refuse in the same words.
    given = dict(zip((first, second), arguments, strict=False)) | named
    if len(arguments) + len(named) != 2 or given.keys() != {first, second}:
        raise TypeError(f"{name}() takes exactly two arguments: {first} and {second}")
    return [given[first], given[second]]


def window_seconds(name: str, window: Any) -> float:
    """``window`` in seconds, or the refusal."""
    if type(window) is not float:
        if type(window) is not int:
            raise TypeError(f"{name}: window must be a float, not {type(window).__name__}")
        window = to_float(window)
    seconds: float = window
    if not MIN_WINDOW_S <= seconds <= MAX_WINDOW_S:
        raise ValueError(
            f"{name}: window must lie between {MIN_WINDOW_S!r} and {MAX_WINDOW_S!r} seconds, "
            f"not {seconds!r}"
        )
    return seconds


def count(name: str, option: str, number: Any) -> int:
    """``number``, 1 or more, or the refusal."""
    if type(number) is not int:
        raise TypeError(f"{name}: {option} must be an int, not {type(number).__name__}")
    least_one: int = number
    if not 1 <= least_one <= MAX_COUNT:
        raise ValueError(
            f"{name}: {option} must lie between 1 and {MAX_COUNT}, not {_shown(least_one)}"
        )
    return least_one


def to_float(seconds: int) -> float:
    """As ``float``, but what is too large is infinite."""
    try:
        return float(seconds)
    except OverflowError:
        # Refused, or taken, like the infinity that it rounds to.
        return inf if seconds > 0 else -inf


def _shown(number: int) -> str:
    # Python refuses to write out an int of thousands of digits, and nobody would read it.
    return str(number) if number.bit_length() <= 64 else f"an int of {number.bit_length()} bits"


def require(holds: bool, message: str) -> None:
    """Raise AssertionError unless it ``holds``."""
    # Not an assert statement: python -O would drop that, and the check is all this is for.
    if not holds:
        raise AssertionError(f"rolling window: {message}")
