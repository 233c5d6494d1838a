# cython: language_level=3, auto_pickle=False, cdivision=True, wraparound=False
"""What waits of one work class, and the exact least priority among it: compiled.

Why the choice is exact, and what a step is, stands in ``waiting_line_py.py``. Here the tree of minima
has eight branches, the doubles of one cache line, and the steps lie in one array.
"""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.math cimport INFINITY
from libc.string cimport memmove

cdef Py_ssize_t LEAST_CAPACITY = 16

# Stretches of the staircase up to this long are looked at step by step.
cdef Py_ssize_t SCAN = 16


# Not cleared by the garbage collector, but its list is: so there is always a line to be asked, and
# what is read from the list is checked for being there.
@cython.final
@cython.no_gc_clear
cdef class WaitingLine:
    """Items in order of arrival, each with its debt and the time it waits since."""

    def __cinit__(self, double max_wait, double wait_weight):
        self._max_wait = max_wait
        self._wait_weight = wait_weight
        self._allot(LEAST_CAPACITY)
        self._items = [None] * LEAST_CAPACITY
        self._measure()

    def __dealloc__(self):
        PyMem_Free(self._since)
        PyMem_Free(self._numbers)
        PyMem_Free(self._minima)
        PyMem_Free(self._room)

    cdef int make_room(self) except -1:
        """So that ``append`` finds a slot: it is called before anything is changed."""
        cdef Py_ssize_t capacity = LEAST_CAPACITY
        if self._used == self._capacity:
            while capacity < 2 * (self.live + 1):
                capacity *= 2
            self._rebuild(capacity)
        return 0

    cdef int64_t append(self, object item, double debt, double since) except -1:
        """Let ``item`` wait behind the others; the number by which it can be withdrawn."""
        cdef Py_ssize_t slot = self._used
        cdef Py_ssize_t node = slot
        cdef int level
        self._items[slot] = item
        self._used += 1
        self.live += 1
        self._since[slot] = since
        self._numbers[slot] = self._appended
        self._appended += 1
        self._level[0][slot] = debt
        for level in range(1, self._top + 1):
            node >>= 3
            if not self._level[level][node] > debt:
                break
            self._level[level][node] = debt
        if self._step_count == 0 or debt < self._steps[self._step_count - 1].debt:
            self._insert_step(self._step_count, slot)
        return self._numbers[slot]

    cdef object pop_least(self, double decay, double now):
        """Take the item of the least priority out of a line that is not empty."""
        cdef Py_ssize_t step = self._least(decay, now)
        return self._remove(self._steps[step].slot, step)

    cdef int withdraw(self, int64_t number) except -1:
        """Take out the item that ``append`` gave this number."""
        cdef Py_ssize_t slot = 0, step = 0, end, middle
        end = self._used
        while slot < end:
            middle = (slot + end) >> 1
            if self._numbers[middle] < number:
                slot = middle + 1
            else:
                end = middle
        end = self._step_count
        while step < end:
            middle = (step + end) >> 1
            if self._steps[middle].slot < slot:
                step = middle + 1
            else:
                end = middle
        if step == self._step_count or self._steps[step].slot != slot:
            step = -1
        self._remove(slot, step)
        return 0

    cdef int rescale(self, double factor) except -1:
        """Multiply every debt by ``factor``: the landmark moves."""
        cdef Py_ssize_t slot
        for slot in range(self._used):
            if self._level[0][slot] < INFINITY:
                self._level[0][slot] *= factor
        # Debts may have become equal, and of equal ones only the first is a step.
        self._measure()
        return 0

    cdef Py_ssize_t _least(self, double decay, double now) noexcept:
        """The step of the least priority, of equal ones the first."""
        cdef double max_wait = self._max_wait
        cdef double wait_weight = self._wait_weight
        cdef Step* steps = self._steps
        cdef Py_ssize_t begins[64]
        cdef Py_ssize_t ends[64]
        cdef Py_ssize_t begin, end, step, depth = 1
        cdef Py_ssize_t last = self._step_count - 1
        cdef Py_ssize_t chosen = last
        cdef double other
        cdef double least = priority(
            steps[last].debt, steps[last].since, decay, now, max_wait, wait_weight
        )
        if last == 0:
            return chosen
        other = priority(steps[0].debt, steps[0].since, decay, now, max_wait, wait_weight)
        if other <= least:
            chosen, least = 0, other
        begins[0], ends[0] = 1, last
        while depth > 0:
            depth -= 1
            begin, end = begins[depth], ends[depth]
            if end - begin > SCAN:
                # No step of the stretch owes less than its last, nor waits longer than its first.
                other = priority(
                    steps[end - 1].debt, steps[begin].since, decay, now, max_wait, wait_weight
                )
                if other < least or (other == least and begin < chosen):
                    step = (begin + end) >> 1
                    begins[depth], ends[depth] = step, end
                    begins[depth + 1], ends[depth + 1] = begin, step
                    depth += 2
                continue
            for step in range(begin, end):
                other = priority(
                    steps[step].debt, steps[step].since, decay, now, max_wait, wait_weight
                )
                if other < least or (other == least and step < chosen):
                    chosen, least = step, other
        return chosen

    cdef object _remove(self, Py_ssize_t slot, Py_ssize_t step):
        """Empty ``slot``, whose step is ``step``, or -1 when it has none."""
        cdef double gone = self._level[0][slot]
        cdef double least
        cdef double* group
        cdef Py_ssize_t node = slot
        cdef int level, branch
        item = self._items[slot]
        self._items[slot] = None
        self.live -= 1
        self._level[0][slot] = INFINITY
        for level in range(1, self._top + 1):
            group = self._level[level - 1] + (node & ~<Py_ssize_t>7)
            node >>= 3
            if self._level[level][node] < gone:
                break
            least = group[0]
            for branch in range(1, 8):
                least = group[branch] if group[branch] < least else least
            if least == gone:
                break
            self._level[level][node] = least
        if step >= 0:
            self._uncover(slot, step)
        if self._capacity > LEAST_CAPACITY and 8 * self.live <= self._capacity:
            try:
                self._rebuild(self._capacity // 2)
            except MemoryError:
                # The larger arrays hold everything; the item has been taken and must be answered.
                pass
        return item

    cdef void _uncover(self, Py_ssize_t slot, Py_ssize_t step) noexcept:
        """Put in the place of a step what owes less than all before it, now that it has gone."""
        cdef double least = self._steps[step - 1].debt if step > 0 else INFINITY
        cdef Py_ssize_t following = -1
        if step + 1 < self._step_count:
            following = self._steps[step + 1].slot
        slot = self._first_below(slot, least)
        if slot == following:
            self._drop_step(step)
            return
        self._set_step(step, slot)
        while True:
            slot = self._first_below(slot, self._level[0][slot])
            if slot == following:
                return
            step += 1
            self._insert_step(step, slot)

    cdef void _set_step(self, Py_ssize_t step, Py_ssize_t slot) noexcept:
        self._steps[step].debt = self._level[0][slot]
        self._steps[step].since = self._since[slot]
        self._steps[step].slot = slot

    cdef void _insert_step(self, Py_ssize_t step, Py_ssize_t slot) noexcept:
        # There are never more steps than slots, so that there is room on one side.
        cdef Step* steps = self._steps
        if steps > self._room and (
            2 * step < self._step_count or steps + self._step_count == self._room + self._capacity
        ):
            if 2 * step < self._step_count:
                memmove(steps - 1, steps, step * sizeof(Step))
                self._steps -= 1
            else:
                # At the end of the room: all go to its beginning, as seldom as there is room.
                memmove(self._room, steps, self._step_count * sizeof(Step))
                self._steps = steps = self._room
                memmove(steps + step + 1, steps + step, (self._step_count - step) * sizeof(Step))
        else:
            memmove(steps + step + 1, steps + step, (self._step_count - step) * sizeof(Step))
        self._step_count += 1
        self._set_step(step, slot)

    cdef void _drop_step(self, Py_ssize_t step) noexcept:
        cdef Step* steps = self._steps
        self._step_count -= 1
        if 2 * step < self._step_count:
            memmove(steps + 1, steps, step * sizeof(Step))
            self._steps += 1
        else:
            memmove(steps + step, steps + step + 1, (self._step_count - step) * sizeof(Step))

    cdef Py_ssize_t _first_below(self, Py_ssize_t slot, double debt) noexcept:
        """The first slot behind ``slot`` that owes less than ``debt``; -1 when none does."""
        cdef Py_ssize_t node = slot + 1
        cdef int level = 0
        while True:
            # What is left of the eight; then, one level up, of the eight eights.
            while node & 7:
                if self._level[level][node] < debt:
                    while level > 0:
                        level -= 1
                        node <<= 3
                        while not self._level[level][node] < debt:
                            node += 1
                    return node
                node += 1
            if level == self._top:
                return -1
            node >>= 3
            level += 1

    cdef int _rebuild(self, Py_ssize_t capacity) except -1:
        """Close the gaps, moving to arrays of ``capacity`` slots."""
        cdef double* since = self._since
        cdef double* minima = self._minima
        cdef double* debts = minima
        cdef int64_t* numbers = self._numbers
        cdef Step* room = self._room
        cdef list items = self._items
        cdef Py_ssize_t slot, kept = 0
        cdef bint moves = capacity != self._capacity
        if moves:
            items = [None] * capacity
            self._allot(capacity)
        for slot in range(self._used):
            if debts[slot] < INFINITY:
                if moves or kept != slot:
                    items[kept] = self._items[slot]
                    if not moves:
                        self._items[slot] = None
                self._level[0][kept] = debts[slot]
                self._since[kept] = since[slot]
                self._numbers[kept] = numbers[slot]
                kept += 1
        self._items = items
        self._used = kept
        if moves:
            PyMem_Free(since)
            PyMem_Free(minima)
            PyMem_Free(numbers)
            PyMem_Free(room)
        self._measure()
        return 0

    cdef int _allot(self, Py_ssize_t capacity) except -1:
        """Put new arrays in the place of the old ones, which the caller still knows."""
        cdef Py_ssize_t size = capacity, nodes = 0
        cdef int level, top = 0
        cdef double* minima
        nodes = size
        while size > 8:
            size = ((size + 7) // 8 + 7) // 8 * 8
            nodes += size
            top += 1
        minima = <double*>PyMem_Malloc(nodes * sizeof(double))
        since = <double*>PyMem_Malloc(capacity * sizeof(double))
        numbers = <int64_t*>PyMem_Malloc(capacity * sizeof(int64_t))
        room = <Step*>PyMem_Malloc(capacity * sizeof(Step))
        if minima == NULL or since == NULL or numbers == NULL or room == NULL:
            PyMem_Free(minima)
            PyMem_Free(since)
            PyMem_Free(numbers)
            PyMem_Free(room)
            raise MemoryError
        self._minima, self._since, self._numbers, self._room = minima, since, numbers, room
        self._capacity, self._top = capacity, top
        size = capacity
        for level in range(top + 1):
            self._level[level] = minima
            minima += size
            size = ((size + 7) // 8 + 7) // 8 * 8
        return 0

    cdef void _measure(self) noexcept:
        """Find minima and steps anew, from the debts of the slots used."""
        cdef Py_ssize_t node, size = self._capacity
        cdef int level, branch
        cdef double least = INFINITY
        cdef double* group
        for node in range(self._used, size):
            self._level[0][node] = INFINITY
        for level in range(1, self._top + 1):
            for node in range(size // 8):
                group = self._level[level - 1] + 8 * node
                least = group[0]
                for branch in range(1, 8):
                    least = group[branch] if group[branch] < least else least
                self._level[level][node] = least
            node = size // 8
            size = (node + 7) // 8 * 8
            while node < size:
                self._level[level][node] = INFINITY
                node += 1
        self._steps = self._room
        self._step_count = 0
        least = INFINITY
        for node in range(self._used):
            if self._level[0][node] < least:
                least = self._level[0][node]
                self._set_step(self._step_count, node)
                self._step_count += 1

    cdef check_valid(self):
        """Assert the invariants; for tests.

        :raises AssertionError: when one does not hold.
        """
        cdef Py_ssize_t slot, node, size = self._capacity, live = 0, step = 0
        cdef int level, branch
        cdef double least
        _require(self._used <= self._capacity, "more slots than capacity")
        _require(
            self._capacity == LEAST_CAPACITY or 8 * self.live > self._capacity, "too much memory"
        )
        _require(len(self._items) == self._capacity, "no place for some items")
        for level in range(1, self._top + 1):
            _require(size % 8 == 0, "a group that is not of eight")
            for node in range(size // 8):
                least = INFINITY
                for branch in range(8):
                    least = min(least, self._level[level - 1][8 * node + branch])
                _require(self._level[level][node] == least, "the tree of minima is wrong")
            size = (size // 8 + 7) // 8 * 8
        _require(size == 8, "the tree of minima has no top")
        _require(self._steps >= self._room, "steps before their room")
        _require(self._steps + self._step_count <= self._room + self._capacity, "steps beyond")
        least = INFINITY
        for slot in range(self._capacity):
            _require(
                (self._items[slot] is None) == (self._level[0][slot] == INFINITY),
                "a debt of nobody, or nobody's debt",
            )
            if slot >= self._used:
                _require(self._items[slot] is None, "an item beyond the last slot")
                continue
            live += self._items[slot] is not None
            if slot > 0:
                _require(self._numbers[slot - 1] < self._numbers[slot], "numbers out of order")
                _require(self._since[slot - 1] <= self._since[slot], "times are out of order")
            if self._level[0][slot] < least:
                least = self._level[0][slot]
                _require(step < self._step_count, "the staircase is too short")
                _require(self._steps[step].slot == slot, "the staircase is wrong")
                _require(self._steps[step].debt == least, "a step has another debt")
                _require(self._steps[step].since == self._since[slot], "a step has another time")
                step += 1
        _require(step == self._step_count, "the staircase is too long")
        _require(live == self.live, "the number of items is wrong")

    cdef check_holds(self, dict expected):
        """Assert that it holds these items, by number, with these debts; for tests."""
        cdef Py_ssize_t slot
        found = {}
        for slot in range(self._used):
            if self._items[slot] is not None:
                found[self._numbers[slot]] = (self._items[slot], self._level[0][slot])
        _require(found == expected, "it holds something else")


def _require(holds, message):
    if not holds:
        raise AssertionError(f"WaitingLine: {message}")
