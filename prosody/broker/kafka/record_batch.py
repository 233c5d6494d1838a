"""A batch of records in Kafka's format (version 2), made of many records at once.

aiokafka's own batches take one record at a time, with a dozen checks for each, and compress at lz4's
level 9: more than twice what it costs here, for batches that are a fifth smaller.
"""

from __future__ import annotations

import struct
from typing import Final

import cramjam
from aiokafka.record.util import calc_crc32c

from prosody._core.constants import BATCH_RECORDS

_LZ4: Final = 3
"""As the reference writes its events."""
_LEVEL: Final = 0
"""The quickest: events shrink to a seventeenth in no time, and hardly more in thirty times that."""
_HEAD: Final = struct.Struct(">qiibI")
"""First offset, length of what follows, leader epoch, version, checksum of what follows."""
_BODY: Final = struct.Struct(">hiqqqhii")
"""Attributes, last offset, first and last timestamp, producer id and epoch, first sequence, records."""
_BEFORE_LENGTH_END: Final = 12


class RecordBatch:
    """Takes records until it is full; for aiokafka a ``BatchBuilder`` that takes no more.

    All of its records have the timestamp of the batch, and none has headers.
    """

    def __init__(self, timestamp_ms: int, bytes_max: int) -> None:
        """:param bytes_max: before compression; the last record may go beyond it."""
        self._timestamp_ms = timestamp_ms
        self.bytes_max = bytes_max
        self.parts: list[bytes] = []
        """The records; ``frame_records`` adds to these, and counts."""
        self.length = 0
        self.count = 0
        self._built: bytes | None = None

    @property
    def full(self) -> bool:
        """The next record belongs into another batch."""
        return self.length >= self.bytes_max or self.count >= BATCH_RECORDS

    # What aiokafka asks of a batch.

    def record_count(self) -> int:
        return self.count

    def closed(self) -> bool:
        return True

    def close(self) -> None:
        """It is closed for aiokafka from the beginning."""

    def size(self) -> int:
        return self.length

    def _build(self) -> bytes:
        """The bytes to be sent; asked for again when they have to be sent again."""
        if self._built is None:
            self._built = _batch(b"".join(self.parts), self.count, self._timestamp_ms)
            self.parts = []
        return self._built


def _batch(records: bytes, count: int, timestamp_ms: int) -> bytes:
    head = _BODY.pack(_LZ4, count - 1, timestamp_ms, timestamp_ms, -1, -1, -1, count)
    body = head + _compressed(records)
    length = _HEAD.size + len(body) - _BEFORE_LENGTH_END
    return _HEAD.pack(0, length, -1, 2, calc_crc32c(body)) + body


def _compressed(content: bytes) -> bytes:
    # The form of lz4 that brokers read: blocks by themselves, no checksum of the content.
    compressor = cramjam.lz4.Compressor(level=_LEVEL, content_checksum=False, block_linked=False)
    compressor.compress(content)
    return bytes(compressor.finish())
