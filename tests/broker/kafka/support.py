"""What the tests of the adapter share: settings, records read back, tasks left over."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from prosody.broker.protocol import ProducerSettings, TopicPartition
from tests.broker.members import Recorder, consumer_settings, fresh, read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from prosody.broker.kafka import KafkaBroker
    from prosody.broker.kafka.consumer import KafkaConsumer
    from prosody.broker.kafka.producer import KafkaProducer
    from prosody.broker.protocol import ConsumerSettings

LIMIT_S = 40.0
PRODUCER = ProducerSettings(client_id="producer", compression="lz4", partitioner="crc32")


def settings(group_id: str | None = None, **changes: Any) -> ConsumerSettings:
    return replace(consumer_settings(group_id or fresh("group")), **changes)


@asynccontextmanager
async def producing(kafka: KafkaBroker) -> AsyncIterator[KafkaProducer]:
    producer = kafka.producer(PRODUCER)
    await producer.start()
    try:
        yield producer
    finally:
        async with asyncio.timeout(LIMIT_S):
            await producer.stop()


@asynccontextmanager
async def consuming(
    kafka: KafkaBroker, *topics: str, **changes: Any
) -> AsyncIterator[tuple[KafkaConsumer, Recorder]]:
    consumer = kafka.consumer(settings(**changes))
    listener = Recorder()
    await consumer.start(topics, listener)
    try:
        yield consumer, listener
    finally:
        async with asyncio.timeout(LIMIT_S):
            await consumer.stop()


async def values_of(kafka: KafkaBroker, topic: str, partitions: int, count: int) -> list[bytes]:
    """The values of a whole topic, in order for each partition."""
    tps = [TopicPartition(topic, n) for n in range(partitions)]
    async with consuming(kafka, topic) as (consumer, listener):
        await listener.until_holds(tps)
        ends = await consumer.end_offsets(tps)
        assert sum(ends.values()) == count
        found = await read(consumer, tps, count)
    return [record.value or b"" for record in sorted(found, key=lambda r: (r.partition, r.offset))]


async def until_gone(before: set[asyncio.Task[Any]]) -> None:
    """Wait until no task but those of ``before`` is left; done ones leave at their next turn."""
    for _ in range(100):
        if not asyncio.all_tasks() - before:
            return
        await asyncio.sleep(0)
    pytest.fail(f"left running: {asyncio.all_tasks() - before}")
