"""Records as they are fetched, in pure Python: the twin of ``fetched_c.pyx``."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, final

from prosody._core.constants import COMPRESSED_OR_CONTROL, LOG_APPEND_TIME, NUMBER_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from prosody._core.protocols_fetched import Fetched, FetchedFrom, PartitionAnswer


@final
class FetchedRecord:
    """A record of a fetch; see ``protocols_fetched.FetchedRecord``."""

    __slots__ = ("headers", "key", "offset", "partition", "timestamp", "topic", "value")

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

    def __init__(self, place: FetchedFrom, fetched: Fetched) -> None:
        self.topic = place.topic
        self.partition = place.partition
        self.offset = fetched.offset
        self.timestamp = fetched.timestamp
        self.key = fetched.key
        self.value = fetched.value
        self.headers = tuple(fetched.headers)

    def __repr__(self) -> str:
        return f"FetchedRecord({self.topic!r}, {self.partition}, {self.offset}, key={self.key!r})"


_ANSWER = struct.Struct(">iihii")
"""Correlation, throttle time, error, session, topics."""
_PARTITION = struct.Struct(">ihqqqi")
"""Number, error, end, stable end, start, aborted transactions."""
_RECORDS = struct.Struct(">ii")
"""Preferred replica, bytes of records."""
_NAME = struct.Struct(">h")
_COUNT = struct.Struct(">i")
_BATCH = struct.Struct(">qiibIhiqqqhii")
_BEFORE_LENGTH = 12
"""Bytes of a batch up to where its length counts from."""
_BEFORE_CRC = 21


class _OddError(Exception):
    """Not plain, or not as it should be."""


def read_answer(frame: bytes) -> list[PartitionAnswer] | None:
    """See ``protocols_fetched.ReadAnswer``."""
    try:
        return _read_answer(frame)
    except (struct.error, UnicodeDecodeError, _OddError):
        return None


def _read_answer(frame: bytes) -> list[PartitionAnswer]:
    found: list[PartitionAnswer] = []
    _, _, error, _, topics = _ANSWER.unpack_from(frame)
    if error:
        raise _OddError
    at = _ANSWER.size
    for _ in range(topics):
        (length,) = _NAME.unpack_from(frame, at)
        at += _NAME.size
        if length < 0 or at + length > len(frame):
            raise _OddError
        topic = frame[at : at + length].decode()
        at += length
        (partitions,) = _COUNT.unpack_from(frame, at)
        at += _COUNT.size
        for _ in range(partitions):
            number, error, end, stable, _, aborted = _PARTITION.unpack_from(frame, at)
            if error or aborted > 0:
                raise _OddError
            at += _PARTITION.size
            length = max(0, _RECORDS.unpack_from(frame, at)[1])
            at += _RECORDS.size
            if at + length > len(frame):
                raise _OddError
            if length:
                if length < _BATCH.size:
                    raise _OddError
                (batch,) = _COUNT.unpack_from(frame, at + 8)
                if not 0 < batch <= length - _BEFORE_LENGTH:
                    raise _OddError
            found.append((topic, number, end, stable, at, length))
            at += length
    if at != len(frame):
        raise _OddError
    return found


def read_records(
    frame: bytes,
    at: int,
    size: int,
    place: FetchedFrom,
    offset: int,
    most: int,
    crc: Callable[[memoryview], int],
) -> tuple[list[FetchedRecord], int] | None:
    """See ``protocols_fetched.ReadRecords``."""
    end = at + size
    if not 0 <= at <= end <= len(frame):
        raise ValueError(f"read_records: {at} to {end} is not within {len(frame)} bytes")
    try:
        return _Reading(frame, place, offset, crc).read(at, _plain_end(frame, at, end, most))
    except (UnicodeDecodeError, _OddError):
        return None


def _plain_end(frame: bytes, at: int, end: int, most: int) -> int:
    """Where the last whole batch ends. Looked at before any is read, because what is not plain is read by
    somebody else."""
    records = 0
    while end - at >= _BATCH.size:
        _, length, _, magic, _, attributes, *_, count = _BATCH.unpack_from(frame, at)
        stop = at + _BEFORE_LENGTH + length
        if stop > end:
            break  # the part of a batch, which is fetched again
        if stop < at + _BATCH.size or magic != 2 or attributes & COMPRESSED_OR_CONTROL:
            raise _OddError
        records += max(0, count)
        if records > most:
            raise _OddError
        at = stop
    return at


class _Reading:
    """Reads the batches of a partition."""

    def __init__(
        self,
        frame: bytes,
        place: FetchedFrom,
        offset: int,
        crc: Callable[[memoryview], int],
    ) -> None:
        self._frame = frame
        self._place = place
        self._reached = offset
        self._crc = crc
        self._records: list[FetchedRecord] = []
        self._at = 0

    def read(self, at: int, end: int) -> tuple[list[FetchedRecord], int]:
        while at < end:
            head = _BATCH.unpack_from(self._frame, at)
            base, length, _, _, crc, attributes, last, first_time, max_time, *_, count = head
            stop = at + _BEFORE_LENGTH + length
            if not (0 <= base < NUMBER_MAX and abs(first_time) < NUMBER_MAX and last >= 0):
                raise _OddError
            if self._crc(memoryview(self._frame)[at + _BEFORE_CRC : stop]) != crc:
                raise _OddError
            self._at = at + _BATCH.size
            time = max_time if attributes & LOG_APPEND_TIME else None
            for _ in range(count):
                self._read_record(stop, base, last, first_time, time)
            if self._at != stop:
                raise _OddError
            # Also where the last records of the batch are compacted away.
            self._reached = max(self._reached, base + last + 1)
            at = stop
        return self._records, self._reached

    def _read_record(
        self, batch_stop: int, base: int, last: int, first_time: int, time: int | None
    ) -> None:
        size = self._size(batch_stop)
        stop = self._at + size
        if size < 1:
            raise _OddError
        self._at += 1  # attributes, which are of no use
        of_time = self._number(stop)
        if abs(of_time) >= NUMBER_MAX:
            raise _OddError
        of_offset = self._number(stop)
        if not 0 <= of_offset <= last:
            raise _OddError
        record = FetchedRecord.__new__(FetchedRecord)
        record.key = self._bytes(stop)
        record.value = self._bytes(stop)
        count = self._number(stop)
        if count < 0:
            raise _OddError
        record.headers = tuple([self._header(stop) for _ in range(count)])
        if self._at != stop:
            raise _OddError
        offset = base + of_offset
        if offset >= self._reached:
            record.topic, record.partition = self._place.topic, self._place.partition
            record.offset = offset
            record.timestamp = first_time + of_time if time is None else time
            self._records.append(record)
            self._reached = offset + 1

    def _header(self, stop: int) -> tuple[str, bytes | None]:
        name = self._bytes(stop)
        if name is None:
            raise _OddError
        return name.decode(), self._bytes(stop)

    def _bytes(self, stop: int) -> bytes | None:
        size = self._size(stop)
        if size < 0:
            return None
        begin = self._at
        self._at = begin + size
        return self._frame[begin : self._at]

    def _size(self, stop: int) -> int:
        """The size of bytes that end before ``stop``; -1: there are none."""
        size = self._number(stop)
        if not -1 <= size <= stop - self._at:
            raise _OddError
        return size

    def _number(self, stop: int) -> int:
        """A number that ends before ``stop``."""
        bits = shift = 0
        while self._at < stop and shift < 64:
            byte = self._frame[self._at]
            self._at += 1
            bits |= (byte & 0x7F) << shift
            if byte < 0x80:
                bits &= 0xFFFF_FFFF_FFFF_FFFF  # as wide as the compiled one's
                # The lowest bit is the sign.
                return (bits >> 1) ^ -(bits & 1)
            shift += 7
        raise _OddError
