# cython: language_level=3, auto_pickle=False, cdivision=True
"""The offset tracker, compiled: the twin of ``offset_tracker_py.py``, text by text."""

cimport cython
from cpython.float cimport PyFloat_CheckExact
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.math cimport isfinite
from libc.stdint cimport int64_t, uint64_t

from math import inf

from prosody._core.offset_set import FRAME, MAX_TEXT, sealed

cdef int64_t MAX_OFFSET = 0x7FFF_FFFF_FFFF_FFFF

# Slots to begin with; the table has twice as many places, so that probes stay short.
cdef Py_ssize_t MIN_SLOTS = 16

cdef const char* BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
cdef Py_ssize_t FRAME_LENGTH = FRAME
cdef Py_ssize_t LONGEST_TEXT = MAX_TEXT


cdef struct Slot:
    int64_t offset
    uint64_t ordinal
    double admitted_at
    Py_ssize_t before
    Py_ssize_t after


@cython.final
cdef class OffsetTracker:
    """Completions in any order become one committable offset; see ``protocols.OffsetTracker``.

    Only outstanding offsets are stored, so what finished behind a long-running head costs nothing
    at all. Each carries its ordinal, the count of offsets admitted before it: what was admitted
    from the head on and is not outstanding has finished ahead.

    Each outstanding offset has a slot; the slots are chained in order of offset, which is that of
    admission. A hash table with linear probing finds the slot of an offset. Both are made anew at
    twice the size when they are full and at half when seven eighths of them are empty.

    ``_needed`` is the length of the encoding in bits, at worst, as it was counted at ``_counted``
    admissions, and what holes in the offsets admitted since can add. It is not counted again before
    ``_count_at`` admissions and completions.
    """

    cdef object __weakref__
    cdef Slot* _slots
    cdef Py_ssize_t* _table   # number of the slot, -1 where there is none
    cdef Py_ssize_t _size     # slots allotted: a power of two
    cdef Py_ssize_t _used     # slots used at least once since they were allotted
    cdef Py_ssize_t _free     # chain of slots given back, through ``after``
    cdef Py_ssize_t _first    # slot of the lowest outstanding offset
    cdef Py_ssize_t _last     # slot of the highest
    cdef Py_ssize_t _outstanding
    cdef uint64_t _admitted
    cdef int64_t _last_admitted
    cdef uint64_t _needed
    cdef uint64_t _counted
    cdef uint64_t _count_at

    def __cinit__(self, *arguments, **named):
        # Cython lets a __cinit__ without parameters ignore whatever it is given.
        if arguments or named:
            raise TypeError("OffsetTracker() takes no arguments")
        self._first = self._last = self._free = -1
        self._last_admitted = -1
        self._resize(MIN_SLOTS)

    def __dealloc__(self):
        PyMem_Free(self._slots)
        PyMem_Free(self._table)

    def __reduce__(self):
        raise TypeError("an OffsetTracker is live state: it can be neither copied nor pickled")

    def __repr__(self):
        return (
            f"OffsetTracker(committable={self.committable}, outstanding={self.outstanding}, "
            f"finished_ahead={self.finished_ahead}, last_admitted={self.last_admitted})"
        )

    @property
    def committable(self):
        """The lowest offset not finished, or one past the last admitted; None before any."""
        if self._first >= 0:
            return self._slots[self._first].offset
        if self._admitted:
            # Unsigned: one past the highest offset there can be is no int64.
            return <uint64_t>self._last_admitted + 1
        return None

    @property
    def outstanding(self):
        """Offsets admitted and not finished."""
        return self._outstanding

    @property
    def finished_ahead(self):
        """Offsets finished that lie beyond the committable one."""
        if self._first < 0:
            return 0
        return self._admitted - self._slots[self._first].ordinal - <uint64_t>self._outstanding

    @property
    def last_admitted(self):
        """The highest offset admitted; None before any."""
        return self._last_admitted if self._admitted else None

    def admit(self, offset, now):
        """Start to track ``offset``, received at ``now`` (seconds, which may go back).

        :raises TypeError: when ``offset`` is no int (or a bool), or ``now`` no float or int.
        :raises ValueError: when ``offset`` is negative, not above the last admitted one or above
            2**63 - 1, or ``now`` is not finite.
        """
        cdef int overflow = 0
        cdef int64_t number
        cdef double admitted_at
        cdef Py_ssize_t index
        cdef Slot* slot
        if not PyLong_CheckExact(offset):
            raise TypeError(f"admit: offset must be an int, not {type(offset).__name__}")
        if PyFloat_CheckExact(now):
            admitted_at = now
        elif PyLong_CheckExact(now):
            admitted_at = _to_float(now)
        else:
            raise TypeError(f"admit: now must be a float, not {type(now).__name__}")
        if not isfinite(admitted_at):
            raise ValueError(f"admit: now must be finite, not {admitted_at!r}")
        number = PyLong_AsLongLongAndOverflow(offset, &overflow)
        if overflow or number <= self._last_admitted:
            self._refuse(offset)
        if self._outstanding == self._size:
            self._resize(self._size * 2)
        if number != self._last_admitted + 1:
            self._needed += 2 * <uint64_t>_digits(
                <uint64_t>number - <uint64_t>self._last_admitted - 1
            )

        index = self._free
        if index >= 0:
            self._free = self._slots[index].after
        else:
            index = self._used
            self._used += 1
        slot = &self._slots[index]
        slot.offset = number
        slot.ordinal = self._admitted
        slot.admitted_at = admitted_at
        slot.before = self._last
        slot.after = -1
        if self._last >= 0:
            self._slots[self._last].after = index
        else:
            self._first = index
        self._last = index
        self._table[self._place(number)] = index
        self._outstanding += 1
        self._admitted += 1
        self._last_admitted = number

    def complete(self, offset):
        """``offset`` is finished. True when the committable offset moved.

        :raises TypeError: when ``offset`` is no int, or a bool.
        :raises ValueError: when ``offset`` was never admitted, or is finished already.
        """
        cdef int overflow = 0
        cdef int64_t number
        cdef Py_ssize_t index = -1
        cdef Py_ssize_t place = 0
        cdef Slot* slot
        cdef bint moved
        if not PyLong_CheckExact(offset):
            raise TypeError(f"complete: offset must be an int, not {type(offset).__name__}")
        number = PyLong_AsLongLongAndOverflow(offset, &overflow)
        if not overflow:
            place = self._place(number)
            index = self._table[place]
        if index < 0:
            raise ValueError(
                f"complete: offset {_shown(offset)} is not outstanding: it was never admitted or "
                f"is finished already (committable {self.committable}, "
                f"last admitted {self.last_admitted})"
            )

        moved = index == self._first
        slot = &self._slots[index]
        if moved:
            self._first = slot.after
        else:
            self._slots[slot.before].after = slot.after
        if index == self._last:
            self._last = slot.before
        else:
            self._slots[slot.after].before = slot.before
        slot.after = self._free
        self._free = index
        self._close_gap(place)
        self._outstanding -= 1
        if self._size > MIN_SLOTS and self._outstanding * 8 <= self._size:
            self._shrink()
        return moved

    def oldest(self):
        """The lowest outstanding offset and when it was admitted; None when nothing is."""
        if self._first < 0:
            return None
        return self._slots[self._first].offset, self._slots[self._first].admitted_at

    def encode_finished(self, max_length):
        """The offsets finished beyond the committable one, as text; see ``offset_set``.

        At most ``max_length`` characters: the lowest offsets, as many as fit. ``""`` when none do, or
        when nothing is finished ahead.

        :raises TypeError: when ``max_length`` is no int, or a bool.
        :raises ValueError: when ``max_length`` is negative.
        """
        cdef int overflow = 0
        cdef int64_t number
        if not PyLong_CheckExact(max_length):
            raise TypeError(
                f"encode_finished: max_length must be an int, not {type(max_length).__name__}"
            )
        number = PyLong_AsLongLongAndOverflow(max_length, &overflow)
        if overflow < 0 or (not overflow and number < 0):
            raise ValueError(
                f"encode_finished: max_length must not be negative, not {_shown(max_length)}"
            )
        if overflow or number > LONGEST_TEXT:
            number = LONGEST_TEXT
        if not self.finished_ahead:
            return ""
        body = self._packed(6 * (number - FRAME_LENGTH))
        return sealed(body, self._slots[self._first].offset) if body else ""

    def encoded_length(self):
        """Characters that suffice for all finished ahead, whatever completes before more is admitted.

        An upper bound: what the outstanding could come to need in the worst order of completion. It
        is counted anew after half as many calls as are outstanding; until then what was
        admitted since is added and what was completed not taken off. An admission adds at most 22
        characters, that of the next offset at most 1. 0 when nothing is outstanding.
        """
        cdef uint64_t count = <uint64_t>self._outstanding
        cdef uint64_t bits = self._needed_at_most()
        cdef uint64_t calls = 2 * self._admitted - count
        if calls >= self._count_at or count == 0:
            # The older count may be the lower one: it holds for any order of completion.
            bits = min(bits, self._bits_of_all() + count // 2)
            self._needed = bits
            self._counted = self._admitted
            self._count_at = calls + count // 2
        return FRAME_LENGTH + <Py_ssize_t>((bits + 5) // 6) if bits else 0

    def check_valid(self):
        """Assert the invariants; for tests.

        :raises AssertionError: when one does not hold.
        """
        cdef Py_ssize_t index, before = -1, count = 0, filed = 0
        cdef Slot* slot
        index = self._first
        while index >= 0:
            _require(index < self._used <= self._size, "a slot out of range")
            slot = &self._slots[index]
            _require(slot.before == before, "the chain is broken")
            _require(slot.ordinal < self._admitted, "ordinal range")
            _require(0 <= slot.offset <= self._last_admitted, "offset range")
            _require(self._table[self._place(slot.offset)] == index, "an offset is not found")
            if before >= 0:
                _require(self._slots[before].offset < slot.offset, "offsets are out of order")
                _require(self._slots[before].ordinal < slot.ordinal, "ordinals are out of order")
            before = index
            index = slot.after
            count += 1
            _require(count <= self._outstanding, "the chain is a ring")
        _require(before == self._last, "the chain ends early")
        _require(count == self._outstanding, "outstanding does not add up")
        for index in range(2 * self._size):
            filed += self._table[index] >= 0
        _require(filed == count, "the table holds more than is outstanding")
        index = self._free
        while index >= 0:
            _require(index < self._used, "a free slot out of range")
            count += 1
            _require(count <= self._used, "the free chain is a ring")
            index = self._slots[index].after
        _require(count == self._used, "a slot is lost")
        _require(self._size == MIN_SLOTS or self._outstanding * 8 > self._size, "too much memory")
        _require((self._last_admitted >= 0) == (self._admitted > 0), "last_admitted")
        _require(0 <= self.finished_ahead <= self._admitted, "finished_ahead does not add up")
        _require(self._counted <= self._admitted, "counted what was not admitted")
        _require(self._bits_of_all() <= self._needed_at_most(), "the encoding outgrew its bound")

    cdef inline uint64_t _distance(self, Slot* slot) noexcept:
        """From an outstanding offset to the next, or to one past the last admitted."""
        if slot.after >= 0:
            return <uint64_t>(self._slots[slot.after].offset - slot.offset)
        return <uint64_t>self._last_admitted + 1 - <uint64_t>slot.offset

    cdef uint64_t _bits_of_all(self) noexcept:
        """What all distances take now, those with nothing finished in them too."""
        cdef uint64_t digits = 0
        cdef Py_ssize_t index = self._first
        while index >= 0:
            digits += _digits(self._distance(&self._slots[index]))
            index = self._slots[index].after
        return 2 * digits - <uint64_t>self._outstanding

    cdef uint64_t _needed_at_most(self) noexcept:
        """Bits that suffice for the encoding; the twin says why."""
        return self._needed + (3 * (self._admitted - self._counted) + 1) // 2

    cdef str _packed(self, int64_t room):
        """The distances as digits of base64, as many as ``room`` bits hold, the last cut to fit."""
        cdef Py_ssize_t index = self._first
        cdef Py_ssize_t end = -1         # slot at which the packing ends
        cdef uint64_t ordinal_of_next
        cdef uint64_t last = 0           # the last distance packed
        cdef int64_t used = 0            # bits up to the distance at hand
        cdef int64_t length = 0          # bits up to ``end``, its distance included
        cdef uint64_t distance
        cdef Py_ssize_t tail = self._last
        cdef Slot* slot
        # Behind the last distance in which something finished there is nothing to pack.
        ordinal_of_next = self._admitted
        while ordinal_of_next - self._slots[tail].ordinal == 1:
            ordinal_of_next = self._slots[tail].ordinal
            tail = self._slots[tail].before
        tail = self._slots[tail].after
        while index != tail:
            slot = &self._slots[index]
            distance = self._distance(slot)
            if used + 2 * _digits(distance) - 1 > room:
                # The largest number that fits is all ones.
                distance = ((<uint64_t>1) << (max(room - used + 1, 0) // 2)) - 1
                if distance > 1:
                    end, last, length = index, distance, used + 2 * _digits(distance) - 1
                break
            used += 2 * _digits(distance) - 1
            if distance > 1:
                end, last, length = index, distance, used
            index = slot.after
        if end < 0:
            return ""
        return self._written(end, last, (length + 5) // 6)

    cdef str _written(self, Py_ssize_t end, uint64_t last, Py_ssize_t characters):
        """The distances from the first slot to ``end``, of which the distance is to be ``last``."""
        cdef Py_ssize_t index = self._first
        cdef Py_ssize_t written = 0
        cdef uint64_t distance, held = 0
        cdef int digit, waiting = 0      # bits in ``held``, the first of them highest
        cdef char* buffer = <char*>PyMem_Malloc(characters)
        if buffer == NULL:
            raise MemoryError
        try:
            while True:
                distance = last if index == end else self._distance(&self._slots[index])
                digit = 2 * <int>_digits(distance) - 1
                while digit > 0:
                    digit -= 1
                    held = (held << 1) | ((distance >> digit) & 1 if digit < 64 else 0)
                    waiting += 1
                    if waiting == 6:
                        buffer[written] = BASE64[held]
                        written += 1
                        held = waiting = 0
                if index == end:
                    break
                index = self._slots[index].after
            if waiting:
                buffer[written] = BASE64[held << (6 - waiting)]
                written += 1
            return PyUnicode_DecodeASCII(buffer, written, NULL)
        finally:
            PyMem_Free(buffer)

    cdef inline Py_ssize_t _home(self, int64_t offset) noexcept:
        # Eight neighbours stay neighbours, for the sake of the processor's cache; the eights are
        # spread by the finisher of splitmix64, because offsets may come at any stride and a mere
        # multiplication crowds some strides into few places.
        cdef uint64_t mixed = <uint64_t>offset >> 3
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9ULL
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBULL
        mixed = (mixed ^ (mixed >> 31)) + <uint64_t>(offset & 7)
        return <Py_ssize_t>(mixed & <uint64_t>(2 * self._size - 1))

    cdef inline Py_ssize_t _place(self, int64_t offset) noexcept:
        """Where ``offset`` is in the table, or the empty place where it belongs."""
        cdef Py_ssize_t place = self._home(offset)
        while self._table[place] >= 0 and self._slots[self._table[place]].offset != offset:
            place = (place + 1) & (2 * self._size - 1)
        return place

    cdef inline void _close_gap(self, Py_ssize_t gap) noexcept:
        """Empty the place ``gap``, moving up what probing would no longer find behind it."""
        cdef Py_ssize_t mask = 2 * self._size - 1
        cdef Py_ssize_t place = gap
        cdef Py_ssize_t home
        while True:
            place = (place + 1) & mask
            if self._table[place] < 0:
                break
            home = self._home(self._slots[self._table[place]].offset)
            if ((place - home) & mask) >= ((place - gap) & mask):
                self._table[gap] = self._table[place]
                gap = place
        self._table[gap] = -1

    cdef int _shrink(self) except -1:
        try:
            self._resize(self._size // 2)
        except MemoryError:
            # The larger arrays hold everything; the completion has been made and must be answered.
            pass
        return 0

    cdef int _resize(self, Py_ssize_t size) except -1:
        """Move the outstanding offsets, in order, into arrays of ``size`` slots."""
        cdef Slot* slots = <Slot*>PyMem_Malloc(size * sizeof(Slot))
        cdef Py_ssize_t* table = <Py_ssize_t*>PyMem_Malloc(2 * size * sizeof(Py_ssize_t))
        cdef Slot* old = self._slots
        cdef Py_ssize_t index, number = 0
        if slots == NULL or table == NULL:
            PyMem_Free(slots)
            PyMem_Free(table)
            raise MemoryError
        for index in range(2 * size):
            table[index] = -1
        index = self._first
        PyMem_Free(self._table)
        self._slots, self._table, self._size = slots, table, size
        while index >= 0:
            slots[number] = old[index]
            slots[number].before = number - 1
            slots[number].after = number + 1
            table[self._place(slots[number].offset)] = number
            index = old[index].after
            number += 1
        PyMem_Free(old)
        self._used = number
        self._free = -1
        self._last = number - 1
        self._first = 0 if number else -1
        if number:
            slots[number - 1].after = -1
        return 0

    cdef int _refuse(self, offset) except -1:
        if not 0 <= offset <= MAX_OFFSET:
            raise ValueError(
                f"admit: offset must lie between 0 and {MAX_OFFSET}, not {_shown(offset)}"
            )
        raise ValueError(
            f"admit: offset {offset} is not above the last admitted one, {self._last_admitted}"
        )


cdef inline int64_t _digits(uint64_t number) noexcept:
    """Binary digits of ``number``."""
    cdef int64_t digits = 0
    cdef int step = 32
    while step:
        if number >> step:
            number >>= step
            digits += step
        step >>= 1
    return digits + <int64_t>number


def _to_float(now):
    try:
        return float(now)
    except OverflowError:
        # Refused like the infinity that it rounds to.
        return inf if now > 0 else -inf


def _shown(offset):
    # Python refuses to write out an int of thousands of digits, and nobody would read it.
    return str(offset) if offset.bit_length() <= 64 else f"an int of {offset.bit_length()} bits"


def _require(holds, message):
    if not holds:
        raise AssertionError(f"OffsetTracker: {message}")
