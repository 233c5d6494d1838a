# cython: language_level=3, auto_pickle=False, cdivision=True, wraparound=False, boundscheck=False
"""Records as they are fetched, compiled: the twin of ``fetched_py.py``."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int16_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t

from prosody._core import constants as c

cdef enum:
    ANSWER_HEAD = 18
    PARTITION_HEAD = 42
    BATCH_HEAD = 61
    BEFORE_LENGTH = 12

cdef int16_t COMPRESSED_OR_CONTROL = c.COMPRESSED_OR_CONTROL
cdef int16_t LOG_APPEND_TIME = c.LOG_APPEND_TIME
cdef int64_t NUMBER_MAX = c.NUMBER_MAX


# ``no_gc``: it holds texts, bytes, numbers and tuples of them, nothing that could lead back to it. A fetch
# brings thousands at once, and the collector would go through all of them, again while they wait.
@cython.no_gc
@cython.freelist(256)
cdef class FetchedRecord:
    """A record of a fetch; see ``protocols_fetched.FetchedRecord``."""

    def __init__(self, place, fetched):
        self.topic = place.topic
        self.partition = place.partition
        self.offset = fetched.offset
        self.timestamp = fetched.timestamp
        self.key = fetched.key
        self.value = fetched.value
        self.headers = tuple(fetched.headers)

    def __repr__(self):
        return f"FetchedRecord({self.topic!r}, {self.partition}, {self.offset}, key={self.key!r})"


# Numbers as Kafka writes them, the highest byte first. Spelt out, because machines differ in the order of
# bytes, and not all of them read from any address.


cdef inline int16_t int16(const unsigned char* at) noexcept:
    return <int16_t> (<uint16_t> at[0] << 8 | at[1])


cdef inline int32_t int32(const unsigned char* at) noexcept:
    return <int32_t> (<uint32_t> at[0] << 24 | <uint32_t> at[1] << 16 | <uint32_t> at[2] << 8 | at[3])


cdef inline int64_t int64(const unsigned char* at) noexcept:
    return <int64_t> (<uint64_t> <uint32_t> int32(at) << 32 | <uint32_t> int32(at + 4))


def read_answer(bytes frame not None):
    """See ``protocols_fetched.ReadAnswer``."""
    cdef const unsigned char* data = <const unsigned char*> PyBytes_AS_STRING(frame)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(frame), at = ANSWER_HEAD, length
    cdef int32_t topics, partitions
    cdef list found = []
    if size < ANSWER_HEAD or int16(data + 8):
        return None
    topics = int32(data + 14)
    while topics > 0:
        topics -= 1
        if at + 2 > size:
            return None
        length = int16(data + at)
        at += 2
        if length < 0 or at + length + 4 > size:
            return None
        try:
            topic = PyUnicode_DecodeUTF8(<const char*> data + at, length, NULL)
        except UnicodeDecodeError:
            return None  # no topic has such a name; whoever reads it once more tells
        at += length
        partitions = int32(data + at)
        at += 4
        while partitions > 0:
            partitions -= 1
            if at + PARTITION_HEAD > size:
                return None
            # Of the partition: an error, or transactions that were aborted.
            if int16(data + at + 4) or int32(data + at + 30) > 0:
                return None
            number, end, stable = int32(data + at), int64(data + at + 6), int64(data + at + 14)
            length = max(0, int32(data + at + 38))
            at += PARTITION_HEAD
            if at + length > size:
                return None
            if length and (
                length < BATCH_HEAD or not 0 < int32(data + at + 8) <= length - BEFORE_LENGTH
            ):
                return None  # not one whole batch
            found.append((topic, number, end, stable, at, length))
            at += length
    return found if at == size else None


cdef inline const unsigned char* varint(
    const unsigned char* at, const unsigned char* stop, int64_t* number
) noexcept:
    """Read a number; where it ends, NULL when it does not before ``stop`` or has too many bytes."""
    cdef uint64_t bits = 0
    cdef int shift = 0
    while at < stop and shift < 64:
        bits |= <uint64_t> (at[0] & 0x7F) << shift
        if at[0] < 0x80:
            # The lowest bit is the sign.
            number[0] = <int64_t> (bits >> 1) ^ -<int64_t> (bits & 1)
            return at + 1
        at += 1
        shift += 7
    return NULL


cdef inline const unsigned char* span(
    const unsigned char* at, const unsigned char* stop, int64_t* size
) noexcept:
    """Read the size of bytes and where they begin; NULL when they end behind ``stop``. -1: there are none."""
    at = varint(at, stop, size)
    if at == NULL or size[0] < -1 or size[0] > stop - at:
        return NULL
    return at


cdef const unsigned char* read_headers(
    const unsigned char* at, const unsigned char* stop, list found
) except? NULL:
    """Read the headers of a record; where they end, NULL when they do not as they should."""
    cdef int64_t count = 0, size = 0
    at = varint(at, stop, &count)
    if at == NULL or count < 0:
        return NULL
    while count > 0:
        count -= 1
        at = span(at, stop, &size)
        if at == NULL or size < 0:
            return NULL
        try:
            name = PyUnicode_DecodeUTF8(<const char*> at, size, NULL)
        except UnicodeDecodeError:
            return NULL
        at = span(at + size, stop, &size)
        if at == NULL:
            return NULL
        if size < 0:
            found.append((name, None))
        else:
            found.append((name, PyBytes_FromStringAndSize(<const char*> at, size)))
            at += size
    return at


cdef Py_ssize_t plain_end(const unsigned char* data, Py_ssize_t at, Py_ssize_t end, Py_ssize_t most) noexcept:
    """Where the last whole batch ends; -1 when one before is not plain, or they have more than ``most``
    records. Looked at before any is read, because what is not plain is read by somebody else."""
    cdef const unsigned char* here
    cdef Py_ssize_t length, count = 0
    while end - at >= BATCH_HEAD:
        here = data + at
        length = int32(here + 8)
        if length > end - at - BEFORE_LENGTH:
            break  # the part of a batch, which is fetched again
        if length < BATCH_HEAD - BEFORE_LENGTH or here[16] != 2 or int16(here + 21) & COMPRESSED_OR_CONTROL:
            return -1
        count += max(0, int32(here + 57))
        if count > most:
            return -1
        at += BEFORE_LENGTH + length
    return at


def read_records(
    bytes frame not None, Py_ssize_t at, Py_ssize_t size, place, int64_t offset, Py_ssize_t most, crc
):
    """See ``protocols_fetched.ReadRecords``."""
    cdef const unsigned char* data = <const unsigned char*> PyBytes_AS_STRING(frame)
    cdef const unsigned char* here
    cdef const unsigned char* stop
    cdef const unsigned char* record_stop
    cdef Py_ssize_t end = at + size, length
    cdef int16_t attributes
    cdef int32_t count, last
    cdef int64_t base, first_time, max_time, number = 0, of_time = 0, of_offset = 0
    cdef int64_t key_size = 0, value_size = 0, reached = offset
    cdef list records = [], headers
    cdef tuple none = ()
    cdef FetchedRecord record
    cdef str topic = place.topic
    cdef object partition = place.partition
    if not 0 <= at <= end <= PyBytes_GET_SIZE(frame):
        raise ValueError(f"read_records: {at} to {end} is not within {PyBytes_GET_SIZE(frame)} bytes")
    end = plain_end(data, at, end, most)
    view = memoryview(frame)
    while at < end:
        here = data + at
        length, attributes = int32(here + 8), int16(here + 21)
        base, last, count = int64(here), int32(here + 23), int32(here + 57)
        first_time, max_time = int64(here + 27), int64(here + 35)
        if not (0 <= base < NUMBER_MAX and -NUMBER_MAX < first_time < NUMBER_MAX and last >= 0):
            return None
        stop = here + BEFORE_LENGTH + length
        if crc(view[at + 21 : at + BEFORE_LENGTH + length]) != <uint32_t> int32(here + 17):
            return None
        here += BATCH_HEAD
        while count > 0:
            count -= 1
            here = span(here, stop, &number)
            if here == NULL or number < 1:
                return None
            record_stop = here + number
            here = varint(here + 1, record_stop, &of_time)  # behind attributes, which are of no use
            if here == NULL or not -NUMBER_MAX < of_time < NUMBER_MAX:
                return None
            here = varint(here, record_stop, &of_offset)
            if here == NULL or not 0 <= of_offset <= last:
                return None
            record = FetchedRecord.__new__(FetchedRecord)
            here = span(here, record_stop, &key_size)
            if here == NULL:
                return None
            if key_size >= 0:
                record.key = PyBytes_FromStringAndSize(<const char*> here, key_size)
                here += key_size
            here = span(here, record_stop, &value_size)
            if here == NULL:
                return None
            if value_size >= 0:
                record.value = PyBytes_FromStringAndSize(<const char*> here, value_size)
                here += value_size
            record.headers = none
            if record_stop - here == 1 and here[0] == 0:
                here += 1
            else:
                headers = []
                here = read_headers(here, record_stop, headers)
                record.headers = tuple(headers)
            if here != record_stop:
                return None
            if base + of_offset >= reached:
                record.topic, record.partition = topic, partition
                record.offset = base + of_offset
                record.timestamp = max_time if attributes & LOG_APPEND_TIME else first_time + of_time
                records.append(record)
                reached = base + of_offset + 1
        if here != stop:
            return None
        # Also where the last records of the batch are compacted away.
        reached = max(reached, base + last + 1)
        at += BEFORE_LENGTH + length
    return (records, reached) if end >= 0 else None
