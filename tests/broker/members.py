"""Helpers of the contract tests: clients with short names, a recording listener, polling members."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING

from prosody.broker.protocol import ConsumerSettings, ProducerSettings, TopicPartition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping

    from prosody.broker.protocol import Broker, BrokerConsumer, BrokerProducer, Record

DEADLINE_S = 40.0
"""No step of a test takes longer, not even a rebalance of a real broker on a busy machine."""


def fresh(word: str) -> str:
    """A name no other test uses: tests share one real broker."""
    return f"{word}-{uuid.uuid4().hex[:12]}"


def consumer_settings(group_id: str, client_id: str = "client") -> ConsumerSettings:
    return ConsumerSettings(
        group_id=group_id,
        client_id=client_id,
        session_timeout_s=10.0,
        rebalance_timeout_s=20.0,
        fetch_bytes=16 * 1024 * 1024,
        assignor="sticky",
        metadata_max_age_s=1.0,
    )


@contextlib.asynccontextmanager
async def producing(
    broker: Broker, *, partitioner: str = "crc32", client_id: str = "producer"
) -> AsyncIterator[BrokerProducer]:
    producer = broker.producer(
        ProducerSettings(client_id=client_id, compression=None, partitioner=partitioner)
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def make_topic(broker: Broker, *, partitions: int, name: str | None = None) -> str:
    topic = name or fresh("topic")
    admin = broker.admin()
    try:
        await admin.create_topic(topic, partitions=partitions, replication_factor=1)
    finally:
        await admin.stop()
    return topic


async def fill(
    producer: BrokerProducer, topic: str, values: Iterable[bytes], key: bytes = b"k"
) -> None:
    for value in values:
        await producer.send(topic, key=key, value=value)


def tps(topic: str, *partitions: int) -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(topic, n) for n in partitions)


async def never(_: frozenset[TopicPartition]) -> None:
    """The hook of a listener that does nothing."""


class Ledger:
    """Who holds which partition, over all members of a group; finds any in two hands."""

    def __init__(self) -> None:
        self.owners: dict[TopicPartition, Recorder] = {}
        self.faults: list[str] = []

    def take(self, who: Recorder, partitions: Iterable[TopicPartition]) -> None:
        for tp in partitions:
            owner = self.owners.setdefault(tp, who)
            if owner is not who:
                self.faults.append(f"{tp} assigned to {who.name} while {owner.name} holds it")

    def give(self, who: Recorder, partitions: Iterable[TopicPartition]) -> None:
        for tp in partitions:
            if self.owners.pop(tp, None) is not who:
                self.faults.append(f"{tp} taken from {who.name}, which did not hold it")


class Recorder:
    """A listener that writes down what it is told, and tells who waits for it."""

    def __init__(self, name: str = "listener", ledger: Ledger | None = None) -> None:
        self.name = name
        self.events: list[tuple[str, frozenset[TopicPartition]]] = []
        self.held: set[TopicPartition] = set()
        self.running = 0
        self.overlapped = False
        self.assigned_hook: Callable[[frozenset[TopicPartition]], Awaitable[None]] = never
        self.revoked_hook: Callable[[frozenset[TopicPartition]], Awaitable[None]] = never
        self.lost_hook: Callable[[frozenset[TopicPartition]], Awaitable[None]] = never
        self._ledger = ledger or Ledger()
        self._changed = asyncio.Event()

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        self._ledger.take(self, partitions)
        async with self._call("assigned", partitions):
            await self.assigned_hook(partitions)
        self.held |= partitions
        self._changed.set()

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        async with self._call("revoked", partitions):
            await self.revoked_hook(partitions)
        self._gone(partitions)

    async def on_lost(self, partitions: frozenset[TopicPartition]) -> None:
        # Gone already: another member may have been given them before this call.
        for tp in partitions:
            if self._ledger.owners.get(tp) is self:
                del self._ledger.owners[tp]
        async with self._call("lost", partitions):
            await self.lost_hook(partitions)
        self.held -= partitions
        self._changed.set()

    def _gone(self, partitions: frozenset[TopicPartition]) -> None:
        self._ledger.give(self, partitions)
        self.held -= partitions
        self._changed.set()

    @contextlib.asynccontextmanager
    async def _call(self, name: str, partitions: frozenset[TopicPartition]) -> AsyncIterator[None]:
        assert isinstance(partitions, frozenset)
        self.running += 1
        self.overlapped |= self.running > 1
        self.events.append((name, partitions))
        self._changed.set()
        try:
            yield
        finally:
            self.running -= 1

    def left(self) -> None:
        """The member stops: what it holds is free without a call."""
        self._ledger.give(self, list(self.held))
        self.held.clear()
        self._ledger = Ledger()

    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def times(self, name: str, tp: TopicPartition) -> int:
        return sum(tp in partitions for event, partitions in self.events if event == name)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; looked at after each listener call begins or ends."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(
                f"{self.name} waited in vain; holds {sorted(self.held)}, was told {self.events}"
            ) from None

    async def until_holds(self, partitions: Collection[TopicPartition]) -> None:
        await self.until(lambda: self.held == set(partitions))


class Member:
    """A consumer that keeps polling all it holds, as a program does, and collects the records."""

    def __init__(
        self, broker: Broker, group_id: str, name: str = "member", ledger: Ledger | None = None
    ) -> None:
        self.consumer = broker.consumer(consumer_settings(group_id, name))
        self.listener = Recorder(name, ledger)
        self.records: list[Record] = []
        self._arrived = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None

    async def join(self, *topics: str) -> Member:
        await self.consumer.start(topics, self.listener)
        self._poller = asyncio.create_task(self._poll())
        return self

    async def _poll(self) -> None:
        while True:
            found = await self.consumer.poll(
                frozenset(self.listener.held), max_records=100, timeout_s=0.2
            )
            for records in found.values():
                self.records.extend(records)
            if found:
                self._arrived.set()

    async def until_read(self, count: int) -> list[Record]:
        async with asyncio.timeout(DEADLINE_S):
            while len(self.records) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.records

    async def end_polling(self) -> None:
        """Poll no more; raises what a poll raised."""
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.wait((self._poller,))
            if not self._poller.cancelled() and (error := self._poller.exception()):
                raise error
            self._poller = None

    async def leave(self) -> None:
        await self.end_polling()
        # Before stop: while it runs, others may already be given what this member held.
        self.listener.left()
        await self.consumer.stop()


@contextlib.asynccontextmanager
async def member(
    broker: Broker, group_id: str, *topics: str, name: str = "member", ledger: Ledger | None = None
) -> AsyncIterator[Member]:
    """A polling member that has joined; it leaves at the end."""
    who = Member(broker, group_id, name, ledger)
    try:
        await who.join(*topics)
        yield who
    finally:
        await who.leave()


@contextlib.asynccontextmanager
async def consuming(
    broker: Broker, topic: str, *partitions: int, group_id: str | None = None
) -> AsyncIterator[BrokerConsumer]:
    """A consumer that nobody polls for; it holds exactly these partitions of the topic already."""
    consumer = broker.consumer(consumer_settings(group_id or fresh("group")))
    listener = Recorder()
    await consumer.start([topic], listener)
    try:
        await listener.until_holds(tps(topic, *partitions))
        yield consumer
    finally:
        await consumer.stop()


async def read(
    consumer: BrokerConsumer, partitions: Collection[TopicPartition], count: int
) -> list[Record]:
    """Poll until ``count`` records have come, at least."""
    found: list[Record] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(found) < count:
            polled: Mapping[TopicPartition, Iterable[Record]] = await consumer.poll(
                partitions, max_records=100, timeout_s=1.0
            )
            for records in polled.values():
                found.extend(records)
    return found
