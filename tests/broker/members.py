"""Helpers of the contract tests: clients with short names, polling members."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import uuid
from typing import TYPE_CHECKING

from prosody.broker.protocol import (
    ConsumerSettings,
    ProducerSettings,
    ReaderSettings,
    TopicPartition,
)
from tests.broker.recorder import DEADLINE_S, Ledger, Recorder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Mapping

    from prosody.broker.protocol import (
        Broker,
        BrokerConsumer,
        BrokerProducer,
        BrokerReader,
        Record,
    )

__all__ = [
    "DEADLINE_S", "Ledger", "Member", "Recorder", "consumer_settings", "consuming", "fill", "fresh",
    "make_topic", "member", "producing", "read", "reading", "tps",
]  # fmt: skip


def fresh(word: str) -> str:
    """A name no other test uses: tests share one real broker."""
    return f"{word}-{uuid.uuid4().hex[:12]}"


def consumer_settings(
    group_id: str, client_id: str = "client", *, assignor: str = "cooperative"
) -> ConsumerSettings:
    return ConsumerSettings(
        group_id=group_id,
        client_id=client_id,
        session_timeout_s=10.0,
        rebalance_timeout_s=20.0,
        fetch_bytes=16 * 1024 * 1024,
        assignor=assignor,
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


@contextlib.asynccontextmanager
async def reading(
    broker: Broker, client_id: str = "reader", *, seek_timeout_s: float = 30.0, **changes: int
) -> AsyncIterator[BrokerReader]:
    settings = ReaderSettings(client_id, seek_timeout_s, changes.pop("discard_threshold", 100))
    reader = broker.reader(dataclasses.replace(settings, **changes))
    try:
        yield reader
    finally:
        await reader.stop()


async def make_topic(
    broker: Broker,
    *,
    partitions: int,
    name: str | None = None,
    config: Mapping[str, str] | None = None,
) -> str:
    topic = name or fresh("topic")
    admin = broker.admin()
    try:
        await admin.create_topic(topic, partitions=partitions, replication_factor=1, config=config)
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


class Member:
    """A consumer that keeps polling all it holds, as a program does, and collects the records."""

    def __init__(
        self,
        broker: Broker,
        group_id: str,
        name: str = "member",
        ledger: Ledger | None = None,
        *,
        assignor: str = "cooperative",
    ) -> None:
        self.consumer = broker.consumer(consumer_settings(group_id, name, assignor=assignor))
        self.listener = Recorder(name, ledger)
        self.records: list[Record] = []
        self._arrived = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None
        self._name, self._ledger = name, self.listener.ledger

    async def join(self, *topics: str) -> Member:
        await self.consumer.start(topics, self.listener)
        self._poller = asyncio.create_task(self._poll())
        return self

    async def _poll(self) -> None:
        while True:
            found = await self.consumer.poll(
                frozenset(self.listener.held), max_records=100, timeout_s=0.2
            )
            listener = self.listener
            if early := found.keys() & listener.revoking | found.keys() - listener.held:
                self._ledger.faults.append(f"{self._name}: polled and not pollable: {early}")
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
    broker: Broker,
    group_id: str,
    *topics: str,
    name: str = "member",
    ledger: Ledger | None = None,
    assignor: str = "cooperative",
) -> AsyncIterator[Member]:
    """A polling member that has joined; it leaves at the end, and was told nothing wrong."""
    who = Member(broker, group_id, name, ledger, assignor=assignor)
    ledger = who.listener.ledger
    try:
        await who.join(*topics)
        yield who
    finally:
        await who.leave()
    assert ledger.faults == [], ledger.faults


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
