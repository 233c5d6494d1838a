# cython: language_level=3, auto_pickle=False, cdivision=True
"""What both rolling windows are made with, compiled: the twin of ``window_clock_py.py``."""

from cpython.float cimport PyFloat_CheckExact
from cpython.long cimport PyLong_CheckExact
from libc.math cimport INFINITY, fabs, floor, isfinite, nextafter
from libc.stdint cimport int64_t

from math import inf

from prosody._core import constants

cdef int64_t BUCKETS = constants.BUCKETS
cdef int64_t BUCKET_TICKS = constants.BUCKET_TICKS
cdef double MIN_WINDOW_S = constants.MIN_WINDOW_S
cdef double MAX_WINDOW_S = constants.MAX_WINDOW_S
cdef double FARTHEST_BUCKET = constants.FARTHEST_BUCKET
cdef Py_ssize_t MAX_COUNT = constants.MAX_COUNT


cdef class WindowClock:
    """Where ``now`` lies in buckets and ticks. It never goes back."""


    cdef void _set_clock(self, double window) noexcept:
        self._window = window
        self._width = window / BUCKETS
        self._farthest = self._width * FARTHEST_BUCKET
        self._latest = -INFINITY

    cdef double _checked(self, str method, now) except? -1.0:
        """``now`` as a float, or the refusal; the clock is not moved yet."""
        cdef double seconds
        if PyFloat_CheckExact(now):
            seconds = now
        elif PyLong_CheckExact(now):
            seconds = to_float(now)
        else:
            raise TypeError(f"{method}: now must be a float, not {type(now).__name__}")
        if not -self._farthest <= seconds <= self._farthest:
            if not isfinite(seconds):
                raise ValueError(f"{method}: now must be finite, not {seconds!r}")
            raise ValueError(
                f"{method}: now must lie between {-self._farthest!r} and {self._farthest!r} "
                f"for a window of {self._window!r} s, not {seconds!r}"
            )
        return seconds

    cdef void _locate(self, double now, int64_t* bucket, int64_t* tick) noexcept:
        """The bucket and the tick of ``now``: a later time never lies in an earlier place."""
        bucket[0] = <int64_t>floor(now / self._width)
        tick[0] = <int64_t>((now - bucket[0] * self._width) / self._width * BUCKET_TICKS)
        # The quotients are rounded, so the tick may come out just outside the bucket.
        tick[0] = min(max(tick[0], 0), BUCKET_TICKS - 1)

    cdef double _reached(self, int64_t bucket, int64_t tick) noexcept:
        """A time that lies at ``tick`` of ``bucket`` or, by float spacing, just behind it."""
        cdef double now = bucket * self._width + <double>tick / BUCKET_TICKS * self._width
        cdef double size = max(fabs(now), self._width)
        cdef double step = nextafter(size, INFINITY) - size
        cdef int64_t at_bucket = 0
        cdef int64_t at_tick = 0
        while True:
            self._locate(now, &at_bucket, &at_tick)
            if at_bucket > bucket or (at_bucket == bucket and at_tick >= tick):
                return now
            now += step
            step += step


cdef list two_arguments(str name, str first, str second, tuple arguments, dict named):
    # By hand, so that both halves refuse in the same words.
    given = dict(zip((first, second), arguments)) | named
    if len(arguments) + len(named) != 2 or given.keys() != {first, second}:
        raise TypeError(f"{name}() takes exactly two arguments: {first} and {second}")
    return [given[first], given[second]]


cdef double window_seconds(str name, window) except -1.0:
    if type(window) is not float:
        if type(window) is not int:
            raise TypeError(f"{name}: window must be a float, not {type(window).__name__}")
        window = to_float(window)
    if not MIN_WINDOW_S <= window <= MAX_WINDOW_S:
        raise ValueError(
            f"{name}: window must lie between {MIN_WINDOW_S!r} and {MAX_WINDOW_S!r} seconds, "
            f"not {window!r}"
        )
    return window


cdef Py_ssize_t count(str name, str option, number) except -1:
    if type(number) is not int:
        raise TypeError(f"{name}: {option} must be an int, not {type(number).__name__}")
    if not 1 <= number <= MAX_COUNT:
        raise ValueError(
            f"{name}: {option} must lie between 1 and {MAX_COUNT}, not {_shown(number)}"
        )
    return number


cdef double to_float(seconds) except? -1.0:
    try:
        return float(seconds)
    except OverflowError:
        # Refused, or taken, like the infinity that it rounds to.
        return inf if seconds > 0 else -inf


def _shown(number):
    # Python refuses to write out an int of thousands of digits, and nobody would read it.
    return str(number) if number.bit_length() <= 64 else f"an int of {number.bit_length()} bits"


cdef int require(bint holds, str message) except -1:
    if not holds:
        raise AssertionError(f"rolling window: {message}")
    return 0
