"""Reading records again, on a real Kafka: what the contract of both brokers cannot show."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaProducer

from prosody.broker.protocol import TopicPartition
from prosody.errors import BrokerError
from tests.broker.kafka.support import LIMIT_S, producing
from tests.broker.members import fill, make_topic, reading

if TYPE_CHECKING:
    from prosody.broker.kafka import KafkaBroker

pytestmark = pytest.mark.real


async def test_it_connects_with_the_first_read(kafka: KafkaBroker) -> None:
    topic = await make_topic(kafka, partitions=1)
    before = asyncio.all_tasks()
    async with reading(kafka) as reader, asyncio.timeout(LIMIT_S):
        link: Any = reader._link  # type: ignore[attr-defined]
        assert asyncio.all_tasks() == before
        assert link._client is None
        assert await reader.read(TopicPartition(topic, 0), 0) is None
        assert link._client is not None
        assert reader._loads == {}  # type: ignore[attr-defined]  # nothing is wanted any more


async def test_a_record_behind_an_open_transaction_is_not_gone(
    kafka: KafkaBroker, kafka_bootstrap: str
) -> None:
    topic = await make_topic(kafka, partitions=1)
    tp = TopicPartition(topic, 0)
    producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, transactional_id=f"tx-{topic}")
    await producer.start()
    try:
        async with producing(kafka) as plain, asyncio.timeout(LIMIT_S):
            await fill(plain, topic, [b"0"])
            await producer.begin_transaction()
            await producer.send_and_wait(topic, b"1", key=b"k")
            await fill(plain, topic, [b"2"])
            async with reading(kafka, seek_timeout_s=2.0) as hasty, reading(kafka) as reader:
                held = [asyncio.create_task(reader.read(tp, offset)) for offset in (1, 2, 3)]
                with pytest.raises(BrokerError, match="an open transaction") as told:
                    await hasty.read(tp, 2)
                assert told.value.retriable
                first = await reader.read(tp, 0)
                assert first is not None
                assert first.value == b"0"
                assert [task.done() for task in held] == [False, False, True]
                await producer.commit_transaction()
                found = await asyncio.gather(*held)
                assert [record and record.value for record in found] == [b"1", b"2", None]
    finally:
        await producer.stop()


async def test_a_lost_connection_is_made_again_within_the_read(kafka: KafkaBroker) -> None:
    topic = await make_topic(kafka, partitions=1)
    async with (
        producing(kafka) as producer,
        reading(kafka) as reader,
        asyncio.timeout(LIMIT_S),
    ):
        await fill(producer, topic, [b"%d" % n for n in range(10)])
        link: Any = reader._link  # type: ignore[attr-defined]
        for offset in range(10):
            record = await reader.read(TopicPartition(topic, 0), offset)
            assert record is not None
            assert record.value == b"%d" % offset
            for connection in list(link._client._conns.values()):
                connection._writer.transport.abort()
