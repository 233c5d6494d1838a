"""What one fetch of a reader has brought: records looked for by offset. Private parts of aiokafka."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka import errors as lower
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.memory_records import MemoryRecords

from prosody.broker.kafka.buffers import LenientRecords, is_header_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prosody.broker.protocol import Record, TopicPartition


class Found(NamedTuple):
    """An offset was reached."""

    record: Record | None
    """None: there is no record at it, and will be none."""


class Chunk:
    """The records of one answer, from the offset that was asked for on. Goes forward only."""

    def __init__(
        self,
        partition: TopicPartition,
        offset: int,
        data: bytes,
        aborted: Sequence[tuple[int, int]] | None,
        stable_end: int,
    ) -> None:
        self.position = offset
        """The lowest offset that can be looked for."""
        self.stable_end = stable_end
        """Where the records end that may be read: the log's end, or where an open transaction began."""
        self._partition = partition
        self._data = data
        self._aborted = aborted
        self._records = self._parse(MemoryRecords(data))
        self._ended = False
        self._ahead: Record | None = None
        """Read already, and behind everything that was looked for."""

    def find(self, offset: int) -> Found | None:
        """Read on to an offset, at ``position`` or behind it. None: the chunk ends before.

        :raises Exception: what lies on the way cannot be read; codecs and parsers raise what they like.
            The chunk is of no use any more.
        """
        assert offset >= self.position, "a chunk is read forward"
        try:
            return self._find(offset)
        except Exception as error:
            if not is_header_name(error):
                raise
            self.position = offset
            self._records = self._parse(LenientRecords(self._data))
            return self._find(offset)

    def _find(self, offset: int) -> Found | None:
        while not self._ended:
            record = self._ahead or next(self._records, None)
            self._ahead = None
            if record is None:
                self._ended = True  # aiokafka's iterator must not be asked again
            elif record.offset >= offset:
                self.position = offset + 1
                if record.offset == offset:
                    return Found(record)
                self._ahead = record
                return Found(None)
        if self._records.next_fetch_offset <= offset:
            return None
        # Within batches that give no record there: markers, aborted ones, those that are compacted.
        self.position = offset + 1
        return Found(None)

    def _parse(self, records: Any) -> Any:
        if records.size_in_bytes() and not records.has_next():
            # Brokers since Kafka 0.10.1 send the first batch whole, whatever its size.
            raise lower.RecordTooLargeError(
                f"the broker has sent a part of a batch: {self._partition}"
            )
        return PartitionRecords(
            self._partition, records, self._aborted, self.position, None, None, True, READ_COMMITTED
        )
