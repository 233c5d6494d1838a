# cython: language_level=3
cimport cython


# ``no_gc``: it holds texts, bytes, numbers and tuples of them, nothing that could lead back to it. A fetch
# brings thousands at once, and the collector would go through all of them, again while they wait.
@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class FetchedRecord:
    cdef readonly str topic
    cdef readonly object partition
    cdef readonly object offset
    cdef readonly object timestamp
    cdef readonly bytes key
    cdef readonly bytes value
    cdef readonly tuple headers
