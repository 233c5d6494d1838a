"""What goes through the broker seam: partitions, offsets, records, and the settings of its clients.

Import them from ``protocol.py``, which is the seam.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prosody.errors import BrokerError

Headers: TypeAlias = "Sequence[tuple[str, bytes | None]]"
"""Names may repeat; a value may be missing."""


READER_FETCH_BYTES = 16 * 1024
"""A reader wants one record, not what follows it."""


class TopicPartition(NamedTuple):
    """A topic and a partition number; a tuple, so ``("orders", 3)`` is equal to it."""

    topic: str
    partition: int


class OffsetAndMetadata(NamedTuple):
    """What a group has committed for a partition: the next offset to read, and a note."""

    offset: int
    metadata: str = ""


class Start(NamedTuple):
    """Where a newly assigned partition begins."""

    offset: int
    """The first offset that will be read."""
    metadata: str = ""
    """The note committed with exactly this offset; empty when reading begins anywhere else."""
    end: int = 0
    """The offset of the next record to be written, as it was at the assignment."""


class Record(Protocol):
    """A record as polled; ``FetchedRecord`` of the core, or the embedded broker's own."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970 UTC; -1 when the record has none."""
        ...

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


class SentRecord(NamedTuple):
    """Where an acknowledged record went."""

    topic: str
    partition: int
    offset: int


class Written(NamedTuple):
    """How a write of many records ended."""

    lost: int
    """Records that were not acknowledged."""
    problem: BrokerError | None
    """Why; None when nothing is lost."""


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """What a consumer of a group needs to know; times in seconds, sizes in bytes."""

    group_id: str
    client_id: str
    session_timeout_s: float
    """A member silent for so long is thrown out of the group."""
    rebalance_timeout_s: float
    """How long a rebalance waits for this member's ``on_revoked``."""
    fetch_bytes: int
    """Budget for records fetched and not yet polled."""
    assignor: str
    """Which assignor to use; see the README's table for the names."""
    metadata_max_age_s: float
    """How often the topic list is read again (new partitions, regular expressions)."""


@dataclass(frozen=True, slots=True)
class ProducerSettings:
    """What a producer needs to know."""

    client_id: str
    compression: str | None
    """``gzip``, ``snappy``, ``lz4``, ``zstd`` or None."""
    partitioner: str
    """``crc32`` (librdkafka's) or ``murmur2`` (the Java client's)."""


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """What a reader of single records needs to know."""

    client_id: str
    seek_timeout_s: float
    """Limit of one whole read, connecting included."""
    discard_threshold: int
    """A record at most so many offsets ahead is reached by reading on, one further away by a seek."""
    fetch_bytes: int = READER_FETCH_BYTES
    """What one fetch brings; a larger record comes all the same."""
