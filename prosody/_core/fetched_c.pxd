# cython: language_level=3
cimport cython


@cython.final
cdef class FetchedRecord:
    cdef readonly str topic
    cdef readonly object partition
    cdef readonly object offset
    cdef readonly object timestamp
    cdef readonly bytes key
    cdef readonly bytes value
    cdef readonly tuple headers
