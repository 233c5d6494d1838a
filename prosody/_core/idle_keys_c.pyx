# cython: language_level=3, auto_pickle=False, wraparound=False
"""What is remembered of a key, and which idle key to forget first: compiled.

The fields of a key are told in ``idle_keys_py.py``; ``place`` is where it stands in the heap here,
from which, unlike there, a key can be taken out wherever it stands.
"""

cimport cython


@cython.final
@cython.freelist(256)
cdef class KeyState:
    """What is remembered of one key."""


# Not cleared by the garbage collector, but its list is: see ``WaitingLine``.
@cython.final
@cython.no_gc_clear
cdef class IdleKeys:
    """Keys of which nothing waits or runs: the one of the least debt is at hand.

    Of equal debts the one that is idle longest comes first.
    """

    def __cinit__(self):
        self._heap = []

    cdef int add(self, KeyState state) except -1:
        """The key has become idle."""
        self._heap.append(state)
        state.rested = self._rests
        self._rests += 1
        self.count += 1
        self._rise(state, self.count - 1)
        return 0

    cdef int remove(self, KeyState state) except -1:
        """The key is busy again, or forgotten."""
        cdef Py_ssize_t place = state.place
        cdef KeyState last = <KeyState>self._heap[self.count - 1]
        del self._heap[self.count - 1]
        self.count -= 1
        state.rested = -1
        if last is not state:
            self._rise(last, place)
            self._sink(last, last.place)
        return 0

    cdef KeyState least(self):
        """The key of the least debt; there must be one."""
        return <KeyState>self._heap[0]

    cdef int rescaled(self) except -1:
        """All debts have been multiplied by one factor, which may have made some equal."""
        cdef Py_ssize_t place
        for place in range(self.count // 2 - 1, -1, -1):
            self._sink(<KeyState>self._heap[place], place)
        return 0

    cdef int _rise(self, KeyState state, Py_ssize_t place) except -1:
        """Put ``state``, which belongs at ``place`` or nearer to the top, where it belongs."""
        cdef KeyState above
        while place > 0:
            above = <KeyState>self._heap[(place - 1) >> 1]
            if not _before(state, above):
                break
            self._heap[place] = above
            above.place = place
            place = (place - 1) >> 1
        self._heap[place] = state
        state.place = place
        return 0

    cdef int _sink(self, KeyState state, Py_ssize_t place) except -1:
        """Put ``state``, which belongs at ``place`` or below, where it belongs."""
        cdef KeyState below, other
        cdef Py_ssize_t under = 2 * place + 1
        while under < self.count:
            below = <KeyState>self._heap[under]
            if under + 1 < self.count:
                other = <KeyState>self._heap[under + 1]
                if _before(other, below):
                    below = other
                    under += 1
            if not _before(below, state):
                break
            self._heap[place] = below
            below.place = place
            place = under
            under = 2 * place + 1
        self._heap[place] = state
        state.place = place
        return 0

    cdef check_valid(self, list states):
        """Assert the invariants, ``states`` being the idle keys; for tests.

        :raises AssertionError: when one does not hold.
        """
        cdef Py_ssize_t place
        cdef KeyState state
        _require(len(states) == self.count == len(self._heap), "the number of idle keys is wrong")
        for place in range(self.count):
            state = <KeyState>self._heap[place]
            _require(state.place == place, "a key has another place")
            _require(0 <= state.rested < self._rests, "a rest out of range")
            if place > 0:
                _require(_before(<KeyState>self._heap[(place - 1) >> 1], state), "no heap")
        for found in states:
            place = (<KeyState>found).place
            _require(place < self.count, "a place out of range")
            _require(self._heap[place] is found, "an idle key is not in the heap")


cdef inline bint _before(KeyState state, KeyState other) noexcept:
    if state.debt == other.debt:
        return state.rested < other.rested
    return state.debt < other.debt


def _require(holds, message):
    if not holds:
        raise AssertionError(f"IdleKeys: {message}")
