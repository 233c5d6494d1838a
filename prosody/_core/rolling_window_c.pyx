# cython: language_level=3, auto_pickle=False, cdivision=True
"""The time window, compiled: the twin of ``rolling_window_py.py``, text by text.

How time is cut into buckets and ticks is told in ``window_clock_py.py``.
"""

cimport cython
from cpython.float cimport PyFloat_CheckExact
from cpython.long cimport PyLong_CheckExact
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy

from prosody._core.window_clock_c cimport (
    WindowClock,
    count,
    require,
    to_float,
    two_arguments,
    window_seconds,
)

from prosody._core import constants

cdef int64_t BUCKETS = constants.BUCKETS
cdef int64_t RING = constants.RING
cdef int64_t BUCKET_TICKS = constants.BUCKET_TICKS
cdef int64_t WINDOW_TICKS = constants.WINDOW_TICKS
cdef Py_ssize_t RECENT_SHARE = constants.RECENT_SHARE
cdef Py_ssize_t MAX_RECENT = constants.MAX_RECENT


@cython.final
@cython.internal
@cython.freelist(256)
cdef class _Key:
    """What is remembered of one key: time used by bucket, and the run in progress.

    The members are explained in ``window_keys_py.py``. A forgotten key has no buckets. ``key`` is what it
    is filed under, borrowed from the dictionary: so there is nothing in here for the garbage collector,
    which would have to go through all keys otherwise. A key whose comparison calls this window would break that.
    """

    cdef PyObject* key
    cdef uint32_t* buckets
    cdef int64_t total
    cdef int64_t oldest
    cdef int64_t began
    cdef int64_t began_tick
    cdef int64_t number
    cdef int64_t serial
    cdef int64_t listed
    cdef bint running

    def __cinit__(self):
        self.buckets = <uint32_t*>PyMem_Calloc(RING, sizeof(uint32_t))
        if self.buckets == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.buckets)


cdef struct Listed:
    # An entry of the heap: what the key had when it was put there. It holds a reference.
    int64_t total
    int64_t number
    int64_t serial
    PyObject* state


cdef enum:
    LEAST_ROOM = 64  # entries


@cython.final
cdef class TimeWindow(WindowClock):
    """Time used per key over a sliding window; see ``protocols_qos.TimeWindow``.

    What it promises, and by which rule keys are evicted, is told in ``rolling_window_py.py``.
    State is made in ``__cinit__``, so that there is no half-made window to be had.
    """

    cdef Py_ssize_t _cache_size
    cdef int64_t _recent_size
    cdef Py_ssize_t _running
    cdef int64_t _ends
    cdef int64_t _serial
    cdef dict _keys
    cdef list _wheel
    cdef Listed* _heap
    cdef Py_ssize_t _heap_size
    cdef Py_ssize_t _heap_room
    cdef list _recent
    cdef uint32_t* _copy
    # The key object that was looked up last and found, and what it is filed under: the calls for a run
    # come with the same object, mostly one after the other, and hashing a tuple costs more than the rest.
    cdef object _last_key
    cdef _Key _last

    def __cinit__(self, *arguments, **named):
        window, cache_size = two_arguments("TimeWindow", "window", "cache_size", arguments, named)
        cdef double seconds = window_seconds("TimeWindow", window)
        cdef Py_ssize_t size = count("TimeWindow", "cache_size", cache_size)
        self._copy = <uint32_t*>PyMem_Malloc(RING * sizeof(uint32_t))
        if self._copy == NULL:
            raise MemoryError
        self._set_clock(seconds)
        self._cache_size = size
        self._recent_size = min(size // RECENT_SHARE, MAX_RECENT)
        self._keys = {}
        # The keys with time used, by the place of their oldest bucket.
        self._wheel = [set() for _ in range(RING)]
        # Of the keys that could be evicted: the time used and the number each had when it was put
        # there, or a later, lower time. So the least entry that is true is the least of all.
        self._give_room(LEAST_ROOM)
        self._recent = []

    def __dealloc__(self):
        cdef Py_ssize_t place
        for place in range(self._heap_size):
            Py_DECREF(<object>self._heap[place].state)
        PyMem_Free(self._heap)
        PyMem_Free(self._copy)

    def __reduce__(self):
        raise TypeError("a TimeWindow is live state: it can be neither copied nor pickled")

    def __repr__(self):
        return (
            f"TimeWindow(window={self._window!r}, cache_size={self._cache_size}, "
            f"remembered={len(self._keys)}, running={self._running})"
        )

    @property
    def remembered(self):
        """Keys kept: those that run, and at most ``cache_size`` others with time used."""
        return len(self._keys)

    @property
    def running(self):
        """Keys that run."""
        return self._running

    def begin(self, key, now):
        """A run of ``key`` begins at ``now`` (seconds).

        :raises TypeError: when ``key`` cannot be hashed, or ``now`` is no float or int.
        :raises ValueError: when one runs already, or ``now`` is not finite or too far from 0.
        """
        cdef double seconds = self._checked("begin", now)
        kept = self._last_key
        cdef _Key state
        found = self._find(key)
        if found is not None and (<_Key>found).running:
            raise ValueError(f"begin: a run of key {key!r} is in progress already")
        # Bound to a name here and below: keys die, and may call back, when all is done.
        gone = self._move(seconds)
        if found is None or (<_Key>found).buckets == NULL:
            state = _Key.__new__(_Key)
            state.key = <PyObject*>key
            self._keys[key] = state
            self._last_key, self._last = key, state
        else:
            state = <_Key>found
        state.running = True
        state.began = self._bucket
        state.began_tick = self._tick
        self._running += 1

    def end(self, key, now):
        """The run of ``key`` ends at ``now`` (seconds).

        :raises KeyError: when nothing of ``key`` runs.
        :raises TypeError: when ``key`` cannot be hashed, or ``now`` is no float or int.
        :raises ValueError: when ``now`` is not finite or too far from 0.
        """
        cdef double seconds = self._checked("end", now)
        kept = self._last_key
        cdef _Key state
        cdef int64_t added
        found = self._find(key)
        if found is None or not (<_Key>found).running:
            raise KeyError(f"end: nothing of key {key!r} runs")
        state = <_Key>found
        gone = self._move(seconds)
        added = self._charge(state, state.buckets)
        if added and not state.total:
            state.oldest = max(state.began, self._bucket - BUCKETS)
            (<set>self._wheel[_place(state.oldest)]).add(state)
        state.total += added
        state.running = False
        self._running -= 1
        if not state.total:
            gone = gone or []
            self._forget(state, gone)
            return
        self._ends += 1
        state.number = self._ends
        self._leave_recent(state)
        if len(self._keys) - self._running > self._cache_size:
            gone = gone or []
            self._evict(gone)

    def used(self, key, now):
        """Seconds used in ``(now - window, now]``, a run in progress counted up to ``now``.

        Never too low, and too high by at most half a bucket.

        :raises TypeError: when ``key`` cannot be hashed, or ``now`` is no float or int.
        :raises ValueError: when ``now`` is not finite or too far from 0.
        """
        cdef double seconds = self._checked("used", now)
        kept = self._last_key
        cdef _Key state
        cdef int64_t oldest, total, ahead, part
        found = self._find(key)
        gone = self._move(seconds)
        if found is None or (<_Key>found).buckets == NULL:
            return 0.0
        state = <_Key>found
        oldest = state.buckets[_place(self._bucket + 1)]
        total = state.total
        if state.running:
            ahead = self._bucket - state.began
            if ahead < BUCKETS:
                total += ahead * BUCKET_TICKS + self._tick - state.began_tick
            else:
                part = BUCKET_TICKS - (state.began_tick if ahead == BUCKETS else 0)
                oldest += part
                total += part + (BUCKETS - 1) * BUCKET_TICKS + self._tick
        total = total - oldest + min(oldest, BUCKET_TICKS - self._tick)
        return total * (self._window / WINDOW_TICKS)

    def room_at(self, key, limit, now):
        """The earliest time, from ``now`` on, at which ``used`` is at most ``limit`` seconds.

        As if nothing of the key ran from ``now`` on. ``used`` at that time is at most ``limit``, and
        more just before, within float spacing. Never too early, and late by at most a bucket.

        :raises TypeError: when ``key`` cannot be hashed, or ``limit`` or ``now`` is no float or int.
        :raises ValueError: when ``limit`` is negative or not a number, or ``now`` is not finite or
            too far from 0.
        """
        cdef double most, seconds, unit
        cdef _Key state
        cdef int64_t allowed, full, bucket, oldest, tick
        if PyFloat_CheckExact(limit):
            most = limit
        elif PyLong_CheckExact(limit):
            most = to_float(limit)
        else:
            raise TypeError(f"room_at: limit must be a float, not {type(limit).__name__}")
        if not most >= 0.0:
            raise ValueError(f"room_at: limit must be 0 or more seconds, not {most!r}")
        seconds = self._checked("room_at", now)
        found = self._keys.get(key)
        gone = self._move(seconds)
        if found is None or (<_Key>found).buckets == NULL or most >= self._window:
            return self._latest
        state = <_Key>found
        unit = self._window / WINDOW_TICKS
        allowed = <int64_t>(most / unit)
        # The quotient is rounded: the most ticks whose seconds are at most the limit.
        if allowed * unit > most:
            allowed -= 1
        elif (allowed + 1) * unit <= most:
            allowed += 1
        memcpy(self._copy, state.buckets, RING * sizeof(uint32_t))
        full = state.total
        if state.running:
            full += self._charge(state, self._copy)
        bucket = self._bucket
        oldest = self._copy[_place(bucket + 1)]
        full -= oldest
        if full + min(oldest, BUCKET_TICKS - self._tick) <= allowed:
            return self._latest
        while full > allowed:
            bucket += 1
            oldest = self._copy[_place(bucket + 1)]
            full -= oldest
        # In this bucket ``oldest`` is cut down to what the limit leaves, at the latest at its end.
        tick = BUCKET_TICKS - (allowed - full)
        if tick == BUCKET_TICKS:
            return self._reached(bucket + 1, 0)
        return self._reached(bucket, tick)

    def check_valid(self):
        """Assert the invariants; for tests.

        :raises AssertionError: when one does not hold.
        """
        cdef _Key state
        cdef Listed entry
        cdef Py_ssize_t running = 0, used = 0, wheel = 0
        cdef int64_t total, bucket, place
        listed = {}
        for place in range(self._heap_size):
            entry = self._heap[place]
            listed[entry.serial] = entry.total, entry.number, entry.serial, <object>entry.state
            if place:
                require(not _before(&entry, &self._heap[(place - 1) >> 1]), "no heap")
        require(0 <= self._tick < BUCKET_TICKS, "a tick out of range")
        require(len(listed) == self._heap_size <= self._heap_room, "two entries have one serial")
        for key, found in self._keys.items():
            state = <_Key>found
            require(state.key == <PyObject*>key, "a key is filed under another")
            require(state.buckets != NULL, "a forgotten key is remembered")
            require(state.running or state.total > 0, "an unused key is remembered")
            total = 0
            for place in range(RING):
                total += state.buckets[place]
                require(state.buckets[place] <= BUCKET_TICKS, "a bucket runs over")
            require(total == state.total, "the total does not add up")
            running += state.running
            if state.running:
                require(
                    (state.began, state.began_tick) <= (self._bucket, self._tick),
                    "a run begins after now",
                )
            if state.total:
                used += 1
                require(self._bucket - BUCKETS <= state.oldest <= self._bucket, "too old a bucket")
                require(state.buckets[_place(state.oldest)] > 0, "the oldest bucket is empty")
                for bucket in range(self._bucket - BUCKETS, state.oldest):
                    require(state.buckets[_place(bucket)] == 0, "an older bucket is not empty")
                require(state in self._wheel[_place(state.oldest)], "a key is not in the wheel")
                require(0 < state.number <= self._ends, "a number out of range")
            if state.serial:
                require(state.serial in listed, "an entry is lost")
                found = listed[state.serial]
                require(found[3] is state, "an entry is another's")
                require(found[:2] <= (state.total, state.number), "an entry is too high")
                require(found[0] == state.listed, "an entry's time is another")
            elif not state.running:
                require(self._is_recent(state), "a key cannot be evicted")
        require(running == self._running, "running does not add up")
        require(len(self._keys) - running <= self._cache_size, "too many keys are remembered")
        for states in self._wheel:
            wheel += len(states)
        require(used == wheel, "a lost key is in the wheel")
        require(len(self._recent) == min(self._recent_size, self._ends), "the recent keys")
        if self._last is not None:
            require(self._keys.get(self._last_key) is self._last, "the last key is another's")

    cdef list _move(self, double now):
        """Let it be ``now``; returns the keys forgotten by that, or None."""
        cdef list gone = None  # most calls move within a bucket, and make no list
        cdef int64_t bucket = 0
        cdef int64_t tick = 0
        cdef int64_t left, place
        cdef set states
        if now <= self._latest:
            return gone
        self._latest = now
        self._locate(now, &bucket, &tick)
        self._tick = tick
        if bucket != self._bucket:
            gone = []
            # Each bucket that the window leaves behind is emptied, in the keys that used it. Their
            # next one stands behind it, so that it comes up in this very loop if it must.
            for left in range(self._bucket + 1, min(bucket, self._bucket + RING) + 1):
                place = _place(left)
                states = <set>self._wheel[place]
                if states:
                    self._wheel[place] = set()
                    for state in states:
                        self._empty(<_Key>state, place, gone)
            self._bucket = bucket
            self._sweep()
        return gone

    cdef int _empty(self, _Key state, int64_t place, list gone) except -1:
        state.total -= state.buckets[place]
        state.buckets[place] = 0
        if state.total:
            state.oldest += 1
            place = _place(state.oldest)
            while not state.buckets[place]:
                state.oldest += 1
                place += 1
                if place == RING:
                    place = 0
            (<set>self._wheel[place]).add(state)
            if state.serial and state.total < state.listed:
                self._list(state)
        elif state.running:
            state.serial = 0  # its time begins anew, and may be less than what is listed
        else:
            self._forget(state, gone)
        return 0

    cdef int64_t _charge(self, _Key state, uint32_t* buckets) noexcept:
        """Add the run in progress, up to now, to ``buckets``; returns the ticks added."""
        cdef int64_t began = state.began
        cdef int64_t began_tick = state.began_tick
        cdef int64_t bucket = self._bucket
        cdef int64_t between
        if began < bucket - BUCKETS:
            began = bucket - BUCKETS
            began_tick = 0
        if began == bucket:
            buckets[_place(bucket)] += <uint32_t>(self._tick - began_tick)
            return self._tick - began_tick
        buckets[_place(began)] += <uint32_t>(BUCKET_TICKS - began_tick)
        for between in range(began + 1, bucket):
            buckets[_place(between)] = <uint32_t>BUCKET_TICKS
        buckets[_place(bucket)] += <uint32_t>self._tick
        return (bucket - began) * BUCKET_TICKS + self._tick - began_tick

    cdef inline bint _is_recent(self, _Key state) noexcept:
        return state.number > self._ends - self._recent_size

    cdef int _leave_recent(self, _Key state) except -1:
        """``state`` ran last: list the key that thereby is no longer recent."""
        cdef Py_ssize_t place
        cdef _Key other
        if self._recent_size:
            if len(self._recent) < self._recent_size:
                self._recent.append(state)
                return 0
            # The list was filled from number 1 on.
            place = <Py_ssize_t>((state.number - 1) % self._recent_size)
            other = <_Key>self._recent[place]
            self._recent[place] = state
            state = other
            if state.running or state.buckets == NULL or self._is_recent(state):
                return 0
        if not state.serial:
            self._list(state)
        return 0

    cdef int _list(self, _Key state) except -1:
        """Put ``state`` among those that could be evicted, or lower down there."""
        self._serial += 1
        state.serial = self._serial
        state.listed = state.total
        if self._heap_size == self._heap_room:
            self._give_room(2 * self._heap_room)
        self._heap_size += 1
        Py_INCREF(state)
        _rise(
            self._heap,
            self._heap_size - 1,
            Listed(state.total, state.number, state.serial, <PyObject*>state),
        )
        self._sweep()
        return 0

    cdef int _unlist_least(self) except -1:
        """Take the least entry out of the heap."""
        cdef PyObject* state = self._heap[0].state
        self._heap_size -= 1
        _sink(self._heap, self._heap_size, 0, self._heap[self._heap_size])
        Py_DECREF(<object>state)
        return 0

    cdef int _sweep(self) except -1:
        # Entries made invalid stay until they come up, or until they are too many.
        cdef Py_ssize_t place, kept = 0
        if self._heap_size <= 2 * len(self._keys) + RING:
            return 0
        for place in range(self._heap_size):
            if self._heap[place].serial == (<_Key>self._heap[place].state).serial:
                self._heap[kept] = self._heap[place]
                kept += 1
            else:
                Py_DECREF(<object>self._heap[place].state)
        self._heap_size = kept
        for place in range(kept // 2 - 1, -1, -1):
            _sink(self._heap, kept, place, self._heap[place])
        self._give_room(max(2 * kept, LEAST_ROOM))
        return 0

    cdef int _give_room(self, Py_ssize_t room) except -1:
        """Room for so many entries in the heap."""
        found = <Listed*>PyMem_Realloc(self._heap, room * sizeof(Listed))
        if found == NULL:
            raise MemoryError
        self._heap, self._heap_room = found, room
        return 0

    cdef int _evict(self, list gone) except -1:
        """Forget the key with the least time used of those that neither run nor ran last."""
        cdef _Key state
        cdef set states
        cdef Listed least
        cdef int64_t place
        while True:
            require(self._heap_size > 0, "there are too many keys, and none can go")
            least = self._heap[0]
            state = <_Key>least.state
            self._unlist_least()
            if least.serial != state.serial:
                continue
            if state.running or self._is_recent(state):
                state.serial = 0
            elif least.total != state.total or least.number != state.number:
                self._list(state)
            else:
                place = _place(state.oldest)
                states = <set>self._wheel[place]
                states.discard(state)
                if not states:
                    self._wheel[place] = set()  # an emptied set keeps its memory
                self._forget(state, gone)
                return 0

    cdef inline _Key _find(self, key):
        """What is remembered of ``key``, or None. Callers keep the last key alive to their end."""
        if key is self._last_key and self._last is not None:
            return self._last
        found = self._keys.get(key)
        if found is not None:
            self._last_key, self._last = key, <_Key>found
        return <_Key>found

    cdef int _forget(self, _Key state, list gone) except -1:
        key = <object>state.key
        gone.append(key)
        if state is self._last:
            gone.append(self._last_key)
            self._last_key = self._last = None
        del self._keys[key]
        # What still refers to it, until its turn comes, keeps neither key nor buckets alive.
        state.serial = 0
        state.key = NULL
        PyMem_Free(state.buckets)
        state.buckets = NULL
        return 0


cdef inline int64_t _place(int64_t bucket) noexcept:
    # Buckets before time 0 have negative numbers, and C divides towards 0.
    cdef int64_t place = bucket % RING
    return place + RING if place < 0 else place


cdef inline bint _before(const Listed* entry, const Listed* other) noexcept:
    if entry.total != other.total:
        return entry.total < other.total
    if entry.number != other.number:
        return entry.number < other.number
    return entry.serial < other.serial


cdef void _rise(Listed* heap, Py_ssize_t place, Listed entry) noexcept:
    """Put ``entry``, which belongs at ``place`` or nearer to the top, where it belongs."""
    cdef Py_ssize_t above
    while place > 0:
        above = (place - 1) >> 1
        if not _before(&entry, &heap[above]):
            break
        heap[place] = heap[above]
        place = above
    heap[place] = entry


cdef void _sink(Listed* heap, Py_ssize_t size, Py_ssize_t place, Listed entry) noexcept:
    """Put ``entry``, which belongs at ``place`` or below, where it belongs among ``size``."""
    cdef Py_ssize_t under = 2 * place + 1
    while under < size:
        if under + 1 < size and _before(&heap[under + 1], &heap[under]):
            under += 1
        if not _before(&heap[under], &entry):
            break
        heap[place] = heap[under]
        place = under
        under = 2 * place + 1
    heap[place] = entry
