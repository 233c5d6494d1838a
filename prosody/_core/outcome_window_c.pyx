# cython: language_level=3, auto_pickle=False, cdivision=True
"""The outcome window, compiled: the twin of ``outcome_window_py.py``, text by text."""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int64_t

from prosody._core.window_clock_c cimport (
    WindowClock,
    count,
    require,
    two_arguments,
    window_seconds,
)

from prosody._core import constants

cdef int64_t BUCKETS = constants.BUCKETS


@cython.final
cdef class OutcomeWindow(WindowClock):
    """Successes and failures over a sliding window; see ``protocols_qos.OutcomeWindow``.

    What it promises is told in ``outcome_window_py.py``. State is made in ``__cinit__``, so that
    there is no half-made window to be had.
    """

    cdef int64_t* _of_successes
    cdef int64_t* _of_failures
    cdef int64_t _successes
    cdef int64_t _failures
    cdef int64_t _minimum

    def __cinit__(self, *arguments, **named):
        window, minimum = two_arguments("OutcomeWindow", "window", "minimum", arguments, named)
        cdef double seconds = window_seconds("OutcomeWindow", window)
        self._minimum = count("OutcomeWindow", "minimum", minimum)
        self._of_successes = <int64_t*>PyMem_Calloc(BUCKETS, sizeof(int64_t))
        self._of_failures = <int64_t*>PyMem_Calloc(BUCKETS, sizeof(int64_t))
        if self._of_successes == NULL or self._of_failures == NULL:
            raise MemoryError
        self._set_clock(seconds)

    def __dealloc__(self):
        PyMem_Free(self._of_successes)
        PyMem_Free(self._of_failures)

    def __reduce__(self):
        raise TypeError("an OutcomeWindow is live state: it can be neither copied nor pickled")

    def __repr__(self):
        return (
            f"OutcomeWindow(window={self._window!r}, minimum={self._minimum}, "
            f"successes={self._successes}, failures={self._failures})"
        )

    def record(self, failed, now):
        """One outcome, at ``now`` (seconds).

        :raises TypeError: when ``failed`` is no bool, or ``now`` no float or int.
        :raises ValueError: when ``now`` is not finite or too far from 0.
        """
        cdef int64_t place
        if type(failed) is not bool:
            raise TypeError(f"record: failed must be a bool, not {type(failed).__name__}")
        self._move(self._checked("record", now))
        place = self._bucket & (BUCKETS - 1)  # a power of two: right below time 0 as well
        if failed is True:
            self._of_failures[place] += 1
            self._failures += 1
        else:
            self._of_successes[place] += 1
            self._successes += 1

    def counts(self, now):
        """Successes and failures in the window: never too many, at most a bucket's too few.

        :raises TypeError: when ``now`` is no float or int.
        :raises ValueError: when ``now`` is not finite or too far from 0.
        """
        self._move(self._checked("counts", now))
        return self._successes, self._failures

    def failure_rate(self, now):
        """Failures as a share of all outcomes; None below the minimum sample.

        :raises TypeError: when ``now`` is no float or int.
        :raises ValueError: when ``now`` is not finite or too far from 0.
        """
        self._move(self._checked("failure_rate", now))
        if self._successes + self._failures < self._minimum:
            return None
        return <double>self._failures / <double>(self._successes + self._failures)

    def check_valid(self):
        """Assert the invariants; for tests.

        :raises AssertionError: when one does not hold.
        """
        cdef int64_t place, successes = 0, failures = 0
        for place in range(BUCKETS):
            successes += self._of_successes[place]
            failures += self._of_failures[place]
            require(self._of_successes[place] >= 0, "a count below zero")
            require(self._of_failures[place] >= 0, "a count below zero")
        require(successes == self._successes, "successes do not add up")
        require(failures == self._failures, "failures do not add up")

    cdef void _move(self, double now) noexcept:
        cdef int64_t bucket = 0
        cdef int64_t tick = 0
        cdef int64_t new, place
        if now <= self._latest:
            return
        self._latest = now
        self._locate(now, &bucket, &tick)
        self._tick = tick
        for new in range(self._bucket + 1, min(bucket, self._bucket + BUCKETS) + 1):
            place = new & (BUCKETS - 1)
            self._successes -= self._of_successes[place]
            self._failures -= self._of_failures[place]
            self._of_successes[place] = 0
            self._of_failures[place] = 0
        self._bucket = bucket
