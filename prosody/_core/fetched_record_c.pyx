# cython: language_level=3, auto_pickle=False
"""A record as fetched, compiled: the twin of ``fetched_record_py.py``."""

cimport cython


# ``no_gc``: it holds texts, bytes, numbers and tuples of them, nothing that could lead back to it. A fetch
# brings thousands at once, and the collector would go through all of them, again while they wait.
@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class FetchedRecord:
    """A record of a fetch; see ``protocols_events.FetchedRecord``."""

    def __cinit__(self, place, fetched):
        self.topic = place.topic
        self.partition = place.partition
        self.offset = fetched.offset
        self.timestamp = fetched.timestamp
        self.key = fetched.key
        self.value = fetched.value
        self.headers = tuple(fetched.headers)

    def __repr__(self):
        return f"FetchedRecord({self.topic!r}, {self.partition}, {self.offset}, key={self.key!r})"
