"""The interfaces of what telemetry events are made of: lines, and the records that hold those."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class EventParts(Protocol):
    """What lines are put together from; an encoder has it.

    ``keys`` and ``places`` stay the same dictionaries; what is called adds to them, and may empty them.
    Of an attempt that ended well the compiled half asks for the key only where JSON escapes part of it.
    """

    @property
    def dispatched(self) -> str:
        """How the first line of a pair begins, up to the digits of its time."""
        ...

    @property
    def succeeded(self) -> str:
        """How its second line begins."""
        ...

    @property
    def consumer(self) -> str:
        """The last fields of each line of a pair, but for those of its own."""
        ...

    @property
    def keys(self) -> dict[str, tuple[str, bytes]]:
        """Keys as fields and as bytes."""
        ...

    @property
    def places(self) -> dict[Any, str | None]:
        """Topic and partition as fields; None where nothing is to be told."""
        ...

    @property
    def time(self) -> Callable[[int], str]:
        """Milliseconds since 1970 UTC as text: that of the second, with ``.123Z`` or the like behind it."""
        ...

    def key(self, key: str) -> tuple[str, bytes]:
        """What ``keys`` says, or would say, of a key."""
        ...

    def place(self, tp: Any) -> str | None:
        """What ``places`` says of a partition that is not in it, or of which it says None."""
        ...

    def about(self, layout: str, tp: Any, number: int, key: str) -> tuple[bytes, str | None]:
        """The key as bytes, and what stands behind the time of an event that is no pair, up to the
        fields of its own; None when nothing is to be told."""
        ...


class EventLines(Protocol):
    """Makes keys and values of records out of entries."""

    def __call__(
        self, parts: EventParts, values: Sequence[Any], offset_ms: float
    ) -> tuple[list[bytes], list[bytes]]:
        """A key and a line for each event, in order; none where nothing is to be told.

        An entry is seven values: head, time in seconds, layout, place, number, key, more. One whose last
        value is a float is a pair: its head is more, its last value a second time.

        :param offset_ms: is added to all times.
        :raises ValueError: when ``values`` are not seven for each entry, or a time is no number.
        :raises OverflowError: when a time is no date.
        """
        ...


class KeyPartitions(Protocol):
    """Says where keys live."""

    def __call__(
        self,
        keys: Sequence[bytes],
        count: int,
        partitioner: str,
        known: dict[bytes, int],
        find: Callable[[bytes], int],
    ) -> list[int]:
        """The partition of each key among ``count``.

        :param known: partitions of keys, where that is quicker than to work them out.
        :param find: works one out, and adds it to ``known`` if it is worth it.
        """
        ...


class KeepRecords(Protocol):
    """Adds records to logs of the embedded broker."""

    def __call__(
        self,
        logs: Sequence[list[Any]],
        partitions: Sequence[int],
        keys: Sequence[bytes],
        values: Sequence[bytes],
        timestamp_ms: int,
    ) -> None:
        """Add the tuple of timestamp, key, value and no headers to the log of each record's partition.

        :raises ValueError: when there is not one partition, key and value each; nothing is added then.
        """
        ...


class Framed(Protocol):
    """A batch of records as Kafka writes them, one behind the other."""

    parts: list[bytes]
    """What there is of it, in pieces of any size."""
    length: int
    """Bytes of all parts."""
    count: int
    """Its records."""

    @property
    def bytes_max(self) -> int:
        """It is full when it has so many bytes, or it has ``BATCH_RECORDS`` records."""
        ...


class FrameRecords(Protocol):
    """Adds records to batches."""

    def __call__(
        self,
        batches: Mapping[int, Framed],
        partitions: Sequence[int],
        keys: Sequence[bytes],
        values: Sequence[bytes],
        start: int,
    ) -> int:
        """Add records to the batches of their partitions, from the ``start``-th on, until one is full.

        Answers how many are done with, ``start`` included: the last one's batch may be full.

        :raises ValueError: when there is not one partition, key and value each; nothing is added then.
        :raises KeyError: when a partition has no batch; what comes before is added.
        """
        ...
