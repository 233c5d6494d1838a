"""Many records at a time: where they go, in which order, and how a write tells that some are lost."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from prosody.broker.partitioners import partition_for
from prosody.broker.protocol import ProducerSettings
from prosody.errors import BrokerError
from tests.broker.members import DEADLINE_S, consuming, make_topic, read, tps

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from prosody.broker.protocol import Broker, BrokerBatches

COUNT = 3000


@contextlib.asynccontextmanager
async def batching(broker: Broker) -> AsyncIterator[BrokerBatches]:
    batches = broker.batches(ProducerSettings("batches", None, "crc32"))
    await batches.start()
    try:
        yield batches
    finally:
        await batches.stop()
        await batches.stop()


async def test_records_keep_the_order_of_their_key_in_the_partition_of_their_key(
    broker: Broker,
) -> None:
    topic = await make_topic(broker, partitions=3)
    keys = [b"key-%d" % (n % 50) for n in range(COUNT)]
    values = [b"%d" % n for n in range(COUNT)]
    async with batching(broker) as batches, consuming(broker, topic, 0, 1, 2) as consumer:
        await batches.find(topic, DEADLINE_S)
        for n in range(0, COUNT, 700):
            batches.add(keys[n : n + 700], values[n : n + 700])
        assert await batches.write(DEADLINE_S) == (0, None)
        batches.add([b"last"], [b"one"])
        assert await batches.write(DEADLINE_S) == (0, None)
        assert await batches.write(DEADLINE_S) == (0, None)  # nothing
        records = await read(consumer, tps(topic, 0, 1, 2), COUNT + 1)
    by_key: dict[bytes, list[int]] = {}
    for record in records:
        assert record.partition == partition_for("crc32", record.key, 3, lambda: 0.0)
        assert not list(record.headers)
        if record.key != b"last":
            by_key.setdefault(record.key, []).append(int(record.value))
    assert len(by_key) == 50
    for key, numbers in by_key.items():
        assert numbers == [n for n in range(COUNT) if keys[n] == key]


async def test_more_than_one_batch_takes_is_written_too(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    async with batching(broker) as batches, consuming(broker, topic, 0) as consumer:
        await batches.find(topic, DEADLINE_S)
        batches.add([b"k"] * 60, [b"%02d" % n + b"x" * 100_000 for n in range(60)])
        assert await batches.write(DEADLINE_S) == (0, None)
        records = await read(consumer, tps(topic, 0), 60)
    assert [int(record.value[:2]) for record in records] == list(range(60))


async def test_a_topic_that_does_not_exist(broker: Broker) -> None:
    async with batching(broker) as batches:
        with pytest.raises(BrokerError, match="does not exist") as caught:
            await batches.find("no such topic!", DEADLINE_S)
        assert caught.value.retriable
        # It goes on with another one.
        topic = await make_topic(broker, partitions=1)
        await batches.find(topic, DEADLINE_S)
        batches.add([b"k"], [b"v"])
        assert await batches.write(DEADLINE_S) == (0, None)
