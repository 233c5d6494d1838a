"""Records are read again from a broker that is silent, gone, and back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from prosody.broker.protocol import TopicPartition
from prosody.errors import BrokerError
from tests.broker.members import fill, make_topic, producing, reading
from tests.outages.support import DEADLINE_S

if TYPE_CHECKING:
    from prosody.broker.protocol import Broker
    from tests.client.support import Place
    from tools.services import KafkaServer

pytestmark = pytest.mark.real


async def a_record(broker: Broker) -> TopicPartition:
    topic = await make_topic(broker, partitions=1)
    async with producing(broker) as producer:
        await fill(producer, topic, [b"0"])
    return TopicPartition(topic, 0)


async def test_a_silent_broker_costs_a_read_its_timeout(
    own_place: Place, running_kafka: KafkaServer
) -> None:
    broker = own_place.broker
    tp = await a_record(broker)
    loop = asyncio.get_running_loop()
    async with (
        reading(broker, seek_timeout_s=3.0) as reader,
        reading(broker, seek_timeout_s=3.0) as unconnected,
        reading(broker, seek_timeout_s=DEADLINE_S) as patient,
    ):
        assert await reader.read(tp, 0) is not None
        running_kafka.pause()
        for who in (reader, unconnected, reader):
            began = loop.time()
            with pytest.raises(BrokerError, match="not read within 3 s") as told:
                await who.read(tp, 0)
            assert told.value.retriable
            assert loop.time() - began < 4.0
        waiting = asyncio.create_task(patient.read(tp, 0))
        await asyncio.sleep(0.1)
        running_kafka.resume()
        async with asyncio.timeout(DEADLINE_S):
            for found in (await waiting, await reader.read(tp, 0), await unconnected.read(tp, 0)):
                assert found is not None
                assert found.value == b"0"


async def test_a_reader_outlives_its_broker(own_place: Place, running_kafka: KafkaServer) -> None:
    broker = own_place.broker
    tp = await a_record(broker)
    async with (
        reading(broker, seek_timeout_s=DEADLINE_S) as patient,
        reading(broker, seek_timeout_s=1.0) as hasty,
    ):
        assert await patient.read(tp, 0) is not None
        running_kafka.kill()
        with pytest.raises(
            BrokerError, match=r"not read within 1 s: .*KafkaConnectionError"
        ) as told:
            await hasty.read(tp, 0)
        assert told.value.retriable
        waiting = asyncio.create_task(patient.read(tp, 0))
        await asyncio.to_thread(running_kafka.start)
        assert await waiting is not None
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    assert await hasty.read(tp, 0) is not None
                except BrokerError:
                    continue  # its topic's leader may not be elected yet
                break
        # A stop while nobody answers does not hang either.
        running_kafka.pause()
        waiting = asyncio.create_task(patient.read(tp, 0))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(5.0):
            await patient.stop()
            with pytest.raises(BrokerError, match="stopped"):
                await waiting
