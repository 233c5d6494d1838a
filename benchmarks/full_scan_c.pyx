# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False
"""The same full scan, compiled: doubles in an array, and no Python object touched while it runs."""

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.math cimport INFINITY, exp

cdef double RATE = 0.6931471805599453 / 120.0
cdef double MAX_WAIT = 120.0
cdef double WAIT_WEIGHT = 200.0


cdef struct Task:
    double used
    double measured
    double since


cdef class FullScan:
    """One work class; no more of the heap than ``pop``, ``complete`` and ``push`` of a closed loop."""

    cdef Task* _tasks
    cdef Py_ssize_t _room
    cdef list _entries
    cdef dict _times

    def __cinit__(self):
        self._entries = []
        self._times = {}

    def __dealloc__(self):
        PyMem_Free(self._tasks)

    def push(self, key, entry, work_class, double now):
        cdef Py_ssize_t count = len(self._entries)
        if count == self._room:
            tasks = <Task*>PyMem_Realloc(self._tasks, (2 * count + 16) * sizeof(Task))
            if tasks == NULL:
                raise MemoryError
            self._tasks = tasks
            self._room = 2 * count + 16
        used, measured = self._times.get(key, (0.0, now))
        self._tasks[count].used = used
        self._tasks[count].measured = measured
        self._tasks[count].since = now
        self._entries.append(entry)

    def pop(self, double now):
        cdef Py_ssize_t at, last = len(self._entries) - 1, chosen = -1
        cdef double least = INFINITY, longest = -INFINITY
        cdef double wait, priority
        for at in range(last + 1):
            wait = (now - self._tasks[at].since) / MAX_WAIT
            if wait > 1.0:
                wait = 1.0
            priority = (
                self._tasks[at].used * exp(RATE * (self._tasks[at].measured - now))
                - WAIT_WEIGHT * (wait * wait)
            )
            if priority < least or (priority == least and now - self._tasks[at].since > longest):
                least = priority
                longest = now - self._tasks[at].since
                chosen = at
        entry = self._entries[chosen]
        self._tasks[chosen] = self._tasks[last]
        self._entries[chosen] = self._entries[last]
        del self._entries[last]
        return entry

    def complete(self, key, double used, double now):
        cdef double before, measured
        before, measured = self._times.get(key, (0.0, now))
        self._times[key] = (before * exp(RATE * (measured - now)) + used, now)
