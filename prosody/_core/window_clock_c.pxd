# cython: language_level=3
from libc.stdint cimport int64_t


cdef class WindowClock:
    cdef object __weakref__
    cdef double _window
    cdef double _width
    cdef double _farthest
    cdef double _latest
    cdef int64_t _bucket
    cdef int64_t _tick

    cdef void _set_clock(self, double window) noexcept
    cdef double _checked(self, str method, now) except? -1.0
    cdef void _locate(self, double now, int64_t* bucket, int64_t* tick) noexcept
    cdef double _reached(self, int64_t bucket, int64_t tick) noexcept


cdef list two_arguments(str name, str first, str second, tuple arguments, dict named)
cdef double window_seconds(str name, window) except -1.0
cdef Py_ssize_t count(str name, str option, number) except -1
cdef double to_float(seconds) except? -1.0
cdef int require(bint holds, str message) except -1
