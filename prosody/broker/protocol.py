"""The broker seam.

Everything above this file behaves the same over each broker behind it: aiokafka (``kafka/``) and the
embedded one (``memory/``). One contract suite (``tests/broker/``) runs over both.

Rules a broker keeps
--------------------
* Calls of one object come from one event loop; ``wake`` from inside any of its callbacks.
* Listener calls come in this order for each partition: assigned, then revoked or lost. ``on_revoked``
  takes its time, and the group goes on meanwhile: others may be assigned, revoked and lost, the same one
  may be lost, records of the others are polled. Nothing of a partition is polled once its revoke began.
* No partition is given to another member before ``on_revoked`` returned (or the member is thrown out of
  the group). While it runs ``commit`` still works for the partitions it names, from ``on_lost`` on not.
* A partition kept through a rebalance is not mentioned: its position stays. (With aiokafka's own
  assignors everything is revoked at each rebalance and assigned again.)
* A partition newly assigned is read from its committed offset, or from the earliest record; where, and
  what was noted with that offset, is told in its :class:`Start`.
* A position that retention has passed goes on at the log's beginning, with a warning. One beyond the
  log's end means another log (the topic was made anew, or cut off): lost, and assigned again.
* ``commit`` is refused, retriably, while the group is between two assignments; ``settled`` waits for that.
* Records come in offset order for each partition, only those of committed transactions.
* Failures are raised as ``prosody.errors.BrokerError`` (or a subclass listed there), never as an error
  of a lower library. ``asyncio.CancelledError`` passes untouched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from prosody.broker.listeners import RebalanceListener, Receiver, Taker
from prosody.broker.values import (
    ConsumerSettings,
    Headers,
    OffsetAndMetadata,
    ProducerSettings,
    ReaderSettings,
    Record,
    SentRecord,
    Start,
    TopicPartition,
    Written,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = [
    "Broker", "BrokerAdmin", "BrokerBatches", "BrokerConsumer", "BrokerProducer", "BrokerReader",
    "ConsumerSettings", "Headers", "OffsetAndMetadata", "ProducerSettings", "ReaderSettings",
    "RebalanceListener", "Receiver", "Record", "SentRecord", "Start", "Taker",
    "TopicPartition", "Written",
]  # fmt: skip


class BrokerConsumer(Protocol):
    """A member of a consumer group."""

    taker: Taker | None
    """Whom what arrives while a poll waits may be given to, so that the poll goes on; None: nobody."""

    async def start(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """Join the group. A topic beginning with ``^`` is a regular expression.
        Returns when connected; it does not wait for an assignment.

        :raises TopicsNotFoundError: naming every plain topic that does not exist.
        :raises BrokerError: when the broker cannot be reached or refuses.
        """
        ...

    async def poll(
        self, partitions: Collection[TopicPartition], *, max_records: int, timeout_s: float
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        """Take at most ``max_records`` records of the given, assigned partitions.

        Returns as soon as there is at least one record, when ``wake`` is called, or after
        ``timeout_s``. An empty collection returns nothing, and still shows the group that this
        member is alive. Records of partitions not asked for stay buffered. A partition that is not
        assigned (any more) gives nothing.

        :raises BrokerError: ``retriable`` ones are worth another poll; once when one is ``unreadable``.
        """
        ...

    def wake(self) -> None:
        """Make a ``poll`` that waits (or the next one, if none does) return at once."""
        ...

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit for the group.

        :raises CommitMetadataTooLargeError: when a note is longer than the broker takes.
        :raises BrokerError: when refused: a partition is not this member's, or the group moved on;
            ``retriable`` while the group is between two assignments, and when trying again may help.
        """
        ...

    async def settled(self) -> None:
        """Return once the group is not between two assignments, so that ``commit`` is possible.

        What may be committed can be different then: compute it after this returned.
        """
        ...

    async def committed(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, OffsetAndMetadata | None]:
        """What the group has committed; None where nothing is."""
        ...

    async def end_offsets(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        """The offset the next record of each partition will get."""
        ...

    def known_end(self, partition: TopicPartition) -> int | None:
        """The offset the next record of a held partition will get, as the last fetch of it has seen; None
        while nothing is known of it. Cheap, no I/O."""
        ...

    async def partition_count(self, topic: str) -> int:
        """How many partitions a topic has, as far as is known; asks only when nothing is.

        :raises BrokerError: there is no such topic, or nobody to ask.
        """
        ...

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read an assigned partition from ``offset`` on; what was buffered of it is dropped."""
        ...

    def leaving(self) -> None:
        """This member is about to stop: it should be given no more partitions. Does not wait."""
        ...

    @property
    def problem(self) -> str | None:
        """What keeps this member from its group right now, for logs and probes; None when nothing does.
        Cheap, no I/O; an outage shows within seconds."""
        ...

    @property
    def unreadable(self) -> Mapping[TopicPartition, str]:
        """Partitions that give no records, and why (a damaged batch, no permission). Others go on."""
        ...

    async def stop(self) -> None:
        """Leave the group and close. Listener calls end; does nothing the second time.

        The partitions still held are given up without a listener call: drain and commit first.
        """
        ...


class BrokerReader(Protocol):
    """Reads single records of any partition again, outside any group.

    Connects at the first read. Reads of one offset share the answer; cancelling one harms no other.
    """

    async def read(self, partition: TopicPartition, offset: int) -> Record | None:
        """The record at exactly this offset.

        None when it is gone for good: retention or compaction has removed it, its transaction was
        aborted, or the log ends before it (the topic was made anew).

        :raises BrokerError: it cannot be read now, or not within ``seek_timeout_s``; ``retriable`` when
            another try may help.
        """
        ...

    async def stop(self) -> None:
        """Close; reads under way fail. Does nothing the second time."""
        ...


class BrokerProducer(Protocol):
    """Writes records: idempotent, acknowledged by all replicas, in order for each partition."""

    async def start(self) -> None:
        """Connect.

        :raises BrokerError: when the broker cannot be reached or refuses.
        """
        ...

    async def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        timestamp_ms: int | None = None,
        timeout_s: float | None = None,
    ) -> SentRecord:
        """Write one record and wait for its acknowledgement.

        ``timeout_s`` bounds all of it: metadata, buffer space, acknowledgement. None waits as long as
        the broker's own delivery limit. Cancelling returns at once; the record may still be
        delivered, and no other send is harmed. Two sends to a partition keep the order of their calls.

        :raises SendTimeoutError: not acknowledged in time; it may still be delivered.
        :raises RecordTooLargeError, BrokerError: refused; ``retriable`` says whether to try again.
        """
        ...

    async def stop(self) -> None:
        """Deliver what is buffered, then close. Does nothing the second time."""
        ...


class BrokerBatches(Protocol):
    """Writes many records at a time into one topic: acknowledged by the leader alone, in order for each
    key, perhaps twice after a failure. For what is cheap and many, and may be lost.
    ``start``, then again and again: ``find``, any number of ``add``, one ``write``."""

    async def start(self) -> None:
        """Connect.

        :raises BrokerError: when the broker cannot be reached or refuses.
        """
        ...

    async def find(self, topic: str, timeout_s: float) -> None:
        """Learn the partitions of the topic that is written to next; returns at once when they are known.

        :raises BrokerError: there is no such topic, or nobody to ask within ``timeout_s``.
        """
        ...

    def add(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Take records for the next ``write``. Does not wait."""
        ...

    async def write(self, timeout_s: float) -> Written:
        """Write what was added, and wait for acknowledgements. Does not raise for a broker that fails."""
        ...

    async def stop(self) -> None:
        """Close; what was added and not written is lost. Does nothing the second time."""
        ...


class BrokerAdmin(Protocol):
    """Topics: make, delete, list."""

    async def create_topic(
        self,
        name: str,
        *,
        partitions: int | None = None,
        replication_factor: int | None = None,
        config: Mapping[str, str] | None = None,
    ) -> None:
        """Create a topic and wait until it can be used. None takes the broker's default.

        :raises BrokerError: refused, with the broker's reason; ``already exists`` included.
        """
        ...

    async def delete_topic(self, name: str) -> None:
        """Delete a topic.

        :raises BrokerError: refused, with the broker's reason; a missing topic included.
        """
        ...

    async def topics(self) -> frozenset[str]:
        """The names of all topics."""
        ...

    async def stop(self) -> None:
        """Close. Does nothing the second time."""
        ...


class Broker(Protocol):
    """A cluster: makes the five kinds of client for it. Making one does no I/O."""

    def consumer(self, settings: ConsumerSettings) -> BrokerConsumer: ...
    def reader(self, settings: ReaderSettings) -> BrokerReader: ...
    def producer(self, settings: ProducerSettings) -> BrokerProducer: ...
    def batches(self, settings: ProducerSettings) -> BrokerBatches: ...
    def admin(self) -> BrokerAdmin: ...
