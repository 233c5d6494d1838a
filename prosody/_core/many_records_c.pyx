# cython: language_level=3, auto_pickle=False, cdivision=True, wraparound=False, boundscheck=False
"""Many records on their way into their partitions, compiled: the twin of ``many_records_py.py``.

Where a key lives is worked out each time, which takes no longer than to look it up; the two records of
an attempt have the same key, an object, one after the other.
"""

cimport cython
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from prosody._core.constants import BATCH_RECORDS

cdef extern from "Python.h":
    void PyObject_GC_UnTrack(void* what)
    int _PyBytes_Resize(PyObject** what, Py_ssize_t size) except -1

cdef uint32_t CRC32_POLYNOMIAL = 0xEDB88320
cdef uint32_t MURMUR_SEED = 0x9747B28C
cdef uint32_t MURMUR_M = 0x5BD1E995
cdef Py_ssize_t RECORDS_MAX = BATCH_RECORDS
cdef enum:
    VARINT_MAX = 10
    LEAST_ROOM = 4096

cdef uint32_t[256] CRC32


cdef void make_table() noexcept:
    cdef uint32_t n, crc
    cdef int bit
    for n in range(256):
        crc = n
        for bit in range(8):
            crc = CRC32_POLYNOMIAL ^ (crc >> 1) if crc & 1 else crc >> 1
        CRC32[n] = crc


make_table()


cdef uint32_t crc32(const unsigned char* key, Py_ssize_t size) noexcept:
    cdef uint32_t crc = ~<uint32_t>0
    cdef Py_ssize_t n
    for n in range(size):
        crc = CRC32[(crc ^ key[n]) & 0xFF] ^ (crc >> 8)
    return ~crc


cdef uint32_t murmur2(const unsigned char* key, Py_ssize_t size) noexcept:
    """As ``prosody.broker.partitioners.murmur2``."""
    cdef uint32_t h = MURMUR_SEED ^ <uint32_t>size
    cdef uint32_t k
    while size >= 4:
        # Spelt out, because machines differ in the order of bytes.
        k = (
            key[0] | <uint32_t>key[1] << 8 | <uint32_t>key[2] << 16 | <uint32_t>key[3] << 24
        ) * MURMUR_M
        h = (h * MURMUR_M) ^ ((k ^ (k >> 24)) * MURMUR_M)
        key += 4
        size -= 4
    if size:
        k = key[0]
        if size > 1:
            k |= <uint32_t>key[1] << 8
        if size > 2:
            k |= <uint32_t>key[2] << 16
        h = (h ^ k) * MURMUR_M
    h = (h ^ (h >> 13)) * MURMUR_M
    return h ^ (h >> 15)


def key_partitions(keys, Py_ssize_t count, str partitioner, dict known, find):
    """See ``protocols_events.KeyPartitions``."""
    cdef bint murmur = partitioner == "murmur2"
    cdef bint usual = (murmur or partitioner == "crc32") and 0 < count <= 0x7FFFFFFF
    cdef PyObject* last = NULL
    cdef uint32_t hashed
    cdef list found = []
    partition = None
    for key in keys:
        if not usual or not PyBytes_CheckExact(key):
            found.append(find(key))
            continue
        if <PyObject*>key != last:
            last = <PyObject*>key
            if murmur:
                hashed = murmur2(<const unsigned char*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
                # The Java client drops the sign bit.
                hashed &= 0x7FFFFFFF
            else:
                hashed = crc32(<const unsigned char*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
            partition = hashed % <uint32_t>count
        found.append(partition)
    return found


cdef int same(partitions, keys, values) except -1:
    if not len(partitions) == len(keys) == len(values):
        raise ValueError(
            f"{len(partitions)} partitions, {len(keys)} keys and {len(values)} values are not one each"
        )
    return 0


cdef inline list as_list(sequence):
    return <list>sequence if type(sequence) is list else list(sequence)


def keep_records(logs, partitions, keys, values, timestamp_ms):
    """See ``protocols_events.KeepRecords``."""
    cdef list all_logs = as_list(logs), numbers = as_list(partitions)
    cdef list all_keys = as_list(keys), all_values = as_list(values)
    cdef Py_ssize_t n, partition, count = len(all_logs)
    cdef tuple none = (), stored
    cdef bint plain = type(timestamp_ms) is int
    same(partitions, keys, values)
    for n in range(len(all_keys)):
        partition = numbers[n]
        if not 0 <= partition < count:
            raise IndexError(f"keep_records: there is no partition {partition}")
        key, value = all_keys[n], all_values[n]
        stored = (timestamp_ms, key, value, none)
        if plain and PyBytes_CheckExact(key) and PyBytes_CheckExact(value):
            # Nothing in it can lead back to it. The collector would find that out by itself, later.
            PyObject_GC_UnTrack(<void*>stored)
        (<list?>all_logs[partition]).append(stored)


@cython.final
@cython.internal
cdef class _Open:
    """A batch while records are added to it, into bytes that grow."""

    cdef object batch
    cdef Py_ssize_t count
    cdef Py_ssize_t bytes_max
    cdef Py_ssize_t before  # bytes that it had
    cdef Py_ssize_t used
    cdef Py_ssize_t room
    cdef PyObject* buffer

    def __cinit__(self, batch):
        self.batch = batch
        self.count = batch.count
        self.bytes_max = batch.bytes_max
        self.before = batch.length

    def __dealloc__(self):
        Py_XDECREF(self.buffer)

    cdef int close(self) except -1:
        """Give the batch what was added to it."""
        if not self.used:
            return 0
        _PyBytes_Resize(&self.buffer, self.used)
        self.batch.parts.append(<object>self.buffer)
        self.batch.length = self.before + self.used
        self.batch.count = self.count
        return 0

    cdef int grow(self, Py_ssize_t size) except -1:
        """Make room for ``size`` more bytes."""
        cdef Py_ssize_t room = max(2 * self.room, LEAST_ROOM, self.used + size)
        if self.buffer == NULL:
            new = PyBytes_FromStringAndSize(NULL, room)
            Py_INCREF(new)
            self.buffer = <PyObject*>new
        else:
            _PyBytes_Resize(&self.buffer, room)
        self.room = room
        return 0

    cdef bint add(self, bytes key, bytes value) except -1:
        """Add a record; whether the batch is full."""
        cdef unsigned char count_text[VARINT_MAX]
        cdef unsigned char key_size_text[VARINT_MAX]
        cdef unsigned char value_size_text[VARINT_MAX]
        cdef unsigned char size_text[VARINT_MAX]
        cdef Py_ssize_t key_size = PyBytes_GET_SIZE(key), value_size = PyBytes_GET_SIZE(value)
        cdef Py_ssize_t of_count = varint(self.count, count_text)
        cdef Py_ssize_t of_key = varint(key_size, key_size_text)
        cdef Py_ssize_t of_value = varint(value_size, value_size_text)
        # No attributes and the timestamp of the batch before these, no headers behind them.
        cdef Py_ssize_t size = 2 + of_count + of_key + key_size + of_value + value_size + 1
        cdef Py_ssize_t of_size = varint(size, size_text)
        cdef char* to
        if self.used + of_size + size > self.room:
            self.grow(of_size + size)
        to = PyBytes_AS_STRING(<object>self.buffer) + self.used
        self.used += of_size + size
        to = put(to, size_text, of_size)
        to[0] = to[1] = 0
        to = put(to + 2, count_text, of_count)
        to = put(to, key_size_text, of_key)
        to = put(to, PyBytes_AS_STRING(key), key_size)
        to = put(to, value_size_text, of_value)
        to = put(to, PyBytes_AS_STRING(value), value_size)
        to[0] = 0
        self.count += 1
        return self.before + self.used >= self.bytes_max or self.count >= RECORDS_MAX


cdef inline char* put(char* to, const void* what, Py_ssize_t size) noexcept:
    memcpy(to, what, size)
    return to + size


cdef inline Py_ssize_t varint(Py_ssize_t number, unsigned char* to) noexcept:
    """Write a number that is not negative as Kafka does; in how many bytes."""
    cdef uint64_t rest = <uint64_t>number << 1  # the lowest bit is the sign
    cdef Py_ssize_t size = 0
    while rest > 0x7F:
        to[size] = <unsigned char>(rest & 0x7F | 0x80)
        rest >>= 7
        size += 1
    to[size] = <unsigned char>rest
    return size + 1


def frame_records(batches, partitions, keys, values, Py_ssize_t start):
    """See ``protocols_events.FrameRecords``."""
    cdef list numbers = as_list(partitions), all_keys = as_list(keys), all_values = as_list(values)
    cdef Py_ssize_t n, end = start
    cdef dict opened = {}
    cdef _Open into = None
    cdef object last = None, partition, found
    same(partitions, keys, values)
    try:
        for n in range(start, len(all_keys)):
            partition = numbers[n]
            if partition is not last:
                found = opened.get(partition)
                if found is None:
                    found = opened[partition] = _Open(batches[partition])
                into, last = <_Open>found, partition
            full = into.add(<bytes?>all_keys[n], <bytes?>all_values[n])
            end = n + 1
            if full:
                break
    finally:
        for into in opened.values():
            into.close()
    return end
