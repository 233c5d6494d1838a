# cython: language_level=3
cimport cython
from libc.stdint cimport int64_t


cdef enum:
    IDLE = 0
    WAITING = 1
    DISPATCHED = 2


@cython.final
cdef class KeyState:
    cdef object key
    cdef object entry
    cdef double debt
    cdef double since
    cdef double charge
    cdef int64_t number
    cdef int64_t rested
    cdef Py_ssize_t place
    cdef int status
    cdef int work_class


@cython.final
cdef class IdleKeys:
    cdef list _heap
    cdef int64_t _rests
    cdef Py_ssize_t count

    cdef int add(self, KeyState state) except -1
    cdef int remove(self, KeyState state) except -1
    cdef KeyState least(self)
    cdef int rescaled(self) except -1
    cdef check_valid(self, list states)
    cdef int _rise(self, KeyState state, Py_ssize_t place) except -1
    cdef int _sink(self, KeyState state, Py_ssize_t place) except -1
