# cython: language_level=3, auto_pickle=False
"""The key queue, compiled: the twin of ``key_queue_py.py``, call by call and text by text."""

cimport cython


# Both lists below are chains of references, and dropping a chain of a million would call a million
# deallocators inside one another: ``trashcan`` is what keeps that off the C stack.


@cython.final
@cython.internal
@cython.freelist(256)
@cython.trashcan(True)
cdef class _Entry:
    """A queued entry that is not the head of its key."""

    cdef object entry
    cdef _Entry next
    cdef unsigned long long number


@cython.final
@cython.internal
@cython.freelist(256)
@cython.trashcan(True)
cdef class _Key:
    """What is remembered of one key.

    ``head`` is its oldest queued entry (None: nothing queued) and ``number`` counts pushes, so that
    ``clear`` can put entries of all keys in order. Most keys never have a second entry; those that
    do chain them from ``second`` to ``last``. Ready keys are chained through ``next_ready``.
    """

    cdef object key
    cdef object head
    cdef _Entry second
    cdef _Entry last
    cdef _Key next_ready
    cdef unsigned long long number
    cdef bint in_flight


@cython.final
cdef class KeyQueue:
    """FIFO per key, at most one entry of a key in flight; see ``protocols.KeyQueue``.

    The states of a key are drawn in ``key_queue_py.py``. State is made in ``__cinit__``, so that
    there is no half-made queue to be had.
    """

    cdef object __weakref__
    cdef dict _keys
    cdef _Key _ready_first
    cdef _Key _ready_last
    cdef Py_ssize_t _ready
    cdef Py_ssize_t _queued
    cdef Py_ssize_t _in_flight
    cdef unsigned long long _pushes

    def __cinit__(self, *arguments, **named):
        # Cython lets a __cinit__ without parameters ignore whatever it is given.
        if arguments or named:
            raise TypeError("KeyQueue() takes no arguments")
        self._keys = {}

    def __reduce__(self):
        raise TypeError("a KeyQueue is live state: it can be neither copied nor pickled")

    def __repr__(self):
        return (
            f"KeyQueue(queued={self._queued}, in_flight={self._in_flight}, "
            f"ready={self._ready}, keys={len(self._keys)})"
        )

    @property
    def queued(self):
        """Entries pushed and not yet popped or cleared."""
        return self._queued

    @property
    def in_flight(self):
        """Entries popped and not yet done."""
        return self._in_flight

    @property
    def ready(self):
        """Keys that ``pop`` could serve now."""
        return self._ready

    @property
    def keys(self):
        """Keys remembered: those with something queued or in flight."""
        return len(self._keys)

    def push(self, key, entry):
        """Queue ``entry`` behind the others of ``key``. True when that made the key ready.

        :raises ValueError: when ``entry`` is None (``pop`` answers None for "nothing ready").
        :raises TypeError: when ``key`` cannot be hashed.
        """
        cdef _Key state
        cdef _Entry following
        cdef bint ready = False
        if entry is None:
            raise ValueError("push: entry must not be None, which pop answers for 'nothing ready'")
        found = self._keys.get(key)
        if found is None:
            state = _Key.__new__(_Key)
            state.key = key
            state.head = entry
            state.number = self._pushes
            self._keys[key] = state
            self._append_ready(state)
            ready = True
        else:
            state = <_Key>found
            if state.head is None:
                state.head = entry
                state.number = self._pushes
            else:
                following = _Entry.__new__(_Entry)
                following.entry = entry
                following.number = self._pushes
                if state.second is None:
                    state.second = following
                else:
                    state.last.next = following
                state.last = following
        self._pushes += 1
        self._queued += 1
        return ready

    def pop(self):
        """Take the head of the key that has been ready longest; None when no key is ready."""
        cdef _Key state
        cdef _Entry following
        state = self._ready_first
        if state is None:
            return None
        self._ready_first = state.next_ready
        if self._ready_first is None:
            self._ready_last = None
        state.next_ready = None
        self._ready -= 1
        entry = state.head
        following = state.second
        if following is None:
            state.head = None
        else:
            state.head = following.entry
            state.number = following.number
            state.second = following.next
            if state.second is None:
                state.last = None
        state.in_flight = True
        self._queued -= 1
        self._in_flight += 1
        return entry

    def done(self, key):
        """The entry of ``key`` in flight has ended. True when the key is ready again.

        :raises KeyError: when nothing of ``key`` is in flight.
        :raises TypeError: when ``key`` cannot be hashed.
        """
        cdef _Key state
        cdef bint ready
        found = self._keys.get(key)
        if found is None or not (<_Key>found).in_flight:
            raise KeyError(f"done: nothing of key {key!r} is in flight")
        state = <_Key>found
        ready = state.head is not None
        if ready:
            self._append_ready(state)
        else:
            del self._keys[state.key]
        state.in_flight = False
        self._in_flight -= 1
        return ready

    def clear(self):
        """Drop every queued entry and return them, oldest push first. In-flight ones stay."""
        cdef _Key state
        cdef _Entry following
        cdef list numbered = []
        cdef dict kept = {}
        # Bound to a name, so that no key dies (and calls back) before the counts are right again.
        cdef dict remembered = self._keys
        for found in remembered.values():
            state = <_Key>found
            if state.head is not None:
                numbered.append((state.number, state.head))
                following = state.second
                while following is not None:
                    numbered.append((following.number, following.entry))
                    following = following.next
            if state.in_flight:
                kept[state.key] = state
        numbered.sort(key=_number)
        entries = [entry for _, entry in numbered]
        self._ready_first = None
        self._ready_last = None
        self._ready = 0
        self._keys = kept
        self._queued = 0
        for found in kept.values():
            state = <_Key>found
            state.head = None
            state.second = None
            state.last = None
        return entries

    def check_valid(self):
        """Assert the invariants; for tests.

        :raises AssertionError: when one does not hold.
        """
        cdef _Key state
        cdef _Entry following
        cdef Py_ssize_t queued = 0, in_flight = 0, ready = 0
        numbers = set()
        for key, found in self._keys.items():
            state = <_Key>found
            _require(state.key is key, "a key is filed under another")
            _require(state.head is not None or state.in_flight, "an idle key is remembered")
            _require((state.second is None) == (state.last is None), "a chain with one end")
            _require(state.second is None or state.head is not None, "a chain without a head")
            mine = [] if state.head is None else [state.number]
            following = state.second
            while following is not None:
                mine.append(following.number)
                _require(following.next is not None or following is state.last, "a lost end")
                following = following.next
            _require(mine == sorted(mine), "a key's entries are out of order")
            numbers.update(mine)
            queued += len(mine)
            in_flight += state.in_flight
            ready += state.head is not None and not state.in_flight
        _require(len(numbers) == queued, "two entries have one number")
        for number in numbers:
            _require(number < self._pushes, "a number out of range")
        _require(queued == self._queued, "queued does not add up")
        _require(in_flight == self._in_flight, "in_flight does not add up")
        _require(ready == self._ready, "ready does not add up")
        state = self._ready_first
        while state is not None:
            _require(self._keys.get(state.key) is state, "a forgotten key is ready")
            _require(state.head is not None, "a ready key has nothing queued")
            _require(not state.in_flight, "a ready key is in flight")
            _require(state.next_ready is not None or state is self._ready_last, "a lost end")
            ready -= 1
            # Bounds the walk as well: a key chained twice would make a ring.
            _require(ready >= 0, "a key is ready twice")
            state = state.next_ready
        _require(ready == 0, "a ready key is not chained")

    cdef inline void _append_ready(self, _Key state) noexcept:
        if self._ready_last is None:
            self._ready_first = state
        else:
            self._ready_last.next_ready = state
        self._ready_last = state
        self._ready += 1


def _number(numbered):
    return numbered[0]


def _require(holds, message):
    if not holds:
        raise AssertionError(f"KeyQueue: {message}")
