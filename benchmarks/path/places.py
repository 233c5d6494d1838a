"""The brokers that are measured: the embedded one, and a real Kafka."""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import TYPE_CHECKING, Any

from prosody.broker.protocol import ConsumerSettings, ProducerSettings, TopicPartition
from prosody.runtime import SystemRuntime

if TYPE_CHECKING:
    from prosody.broker.protocol import Broker

PARTITIONS = 4
_numbers = itertools.count(1)


class Place:
    """A broker with a filled topic."""

    def __init__(self, name: str, broker: Broker) -> None:
        self.name = name
        self.broker = broker
        self.topic = ""

    async def fill(self, records: list[tuple[bytes, bytes]]) -> None:
        """Make a new topic of four partitions that holds ``records``."""
        self.topic = f"bench-{os.getpid()}-{next(_numbers)}"
        admin = self.broker.admin()
        await admin.create_topic(self.topic, partitions=PARTITIONS)
        await admin.stop()
        await self.append(records)

    async def append(self, records: list[tuple[bytes, bytes]]) -> None:
        producer = self.broker.producer(ProducerSettings("bench", "lz4", "crc32"))
        await producer.start()
        headers = (("source-system", b"bench"),)
        for chunk in itertools.batched(records, 5000) if hasattr(itertools, "batched") else _chunks(records):
            await asyncio.gather(
                *(
                    producer.send(self.topic, key=key, value=value, headers=headers, timeout_s=60.0)
                    for key, value in chunk
                )
            )
        await producer.stop()

    async def uncommitted(self, group: str) -> int:
        """Records of the topic that ``group`` has not committed."""
        consumer = self.consumer(group)
        partitions = [TopicPartition(self.topic, p) for p in range(PARTITIONS)]
        await consumer.start([self.topic], _Nobody())
        try:
            ends = await consumer.end_offsets(partitions)
            notes = await consumer.committed(partitions)
        finally:
            await consumer.stop()
        return sum(ends[tp] - (n.offset if (n := notes[tp]) else 0) for tp in partitions)

    def consumer(self, group: str) -> Any:
        return self.broker.consumer(
            ConsumerSettings(group, "bench", 30.0, 30.0, 64 * 2**20, "roundrobin", 60.0)
        )


class _Nobody:
    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None: ...
    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None: ...
    async def on_lost(self, partitions: frozenset[TopicPartition]) -> None: ...


def _chunks(records: list[tuple[bytes, bytes]]) -> Any:
    for at in range(0, len(records), 5000):
        yield records[at : at + 5000]


def memory_place() -> Place:
    from prosody.broker.memory import MemoryBroker, MemoryCluster

    broker = MemoryBroker(MemoryCluster(), runtime=SystemRuntime(), auto_create_topics=False)
    return Place("memory", broker)


def kafka_place(bootstrap: str) -> Place:
    from prosody.broker.kafka import KafkaBroker

    return Place("kafka", KafkaBroker((bootstrap,), runtime=SystemRuntime()))
