"""The interfaces of what fetches bring: records, and the answers they come in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PartitionAnswer: TypeAlias = tuple[str, int, int, int, int, int]
"""What an answer says of a partition: topic, number, the end of its log, where the records end that may
be read, and where in the answer bytes of records begin and how many."""


class FetchedFrom(Protocol):
    """Where a record was fetched from; aiokafka's ``TopicPartition`` is one."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...


class Fetched(Protocol):
    """A record of a batch, as aiokafka reads it."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


class FetchedRecord(FetchedFrom, Fetched, Protocol):
    """A record as this project reads it, the shape of ``prosody.broker.protocol.Record``.

    aiokafka's own has eleven fields and is a dataclass; this one is made in a fraction of its time, once
    for every message, and the compiled one is nothing to the garbage collector.
    """

    def __init__(self, place: FetchedFrom, fetched: Fetched) -> None: ...


class ReadAnswer(Protocol):
    """Reads the answer to a fetch of version 11, without its size."""

    def __call__(self, frame: bytes) -> list[PartitionAnswer] | None:
        """What it says of each partition, if it is plain.

        None when it is not: it has an error, or aborted transactions, or records that do not begin with
        one whole batch, or it cannot be read.
        """
        ...


class ReadRecords(Protocol):
    """Reads the records of one partition in an answer."""

    def __call__(
        self,
        frame: bytes,
        at: int,
        size: int,
        place: FetchedFrom,
        offset: int,
        most: int,
        crc: Callable[[memoryview], int],
    ) -> tuple[Sequence[FetchedRecord], int] | None:
        """The records from ``offset`` on, and the offset to be fetched next.

        None unless they are plain: batches of version 2, not compressed, no markers, whole but for the
        last one, with at most ``most`` records, and none that cannot be read. Whoever reads them with more
        care tells then what is wrong. Which transactions were aborted is not its business.

        :param at: where the batches begin in ``frame``, ``size`` bytes of them.
        :param crc: the CRC-32C of bytes.
        :raises ValueError: ``frame`` has no such bytes.
        """
        ...
