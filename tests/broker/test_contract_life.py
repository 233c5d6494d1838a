"""Starting and stopping: twice, early, in the middle; and nothing left running."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from prosody.broker.protocol import Broker, OffsetAndMetadata, ProducerSettings, TopicPartition
from prosody.errors import BrokerError
from tests.broker.members import (
    DEADLINE_S,
    Recorder,
    consumer_settings,
    fresh,
    make_topic,
    member,
    producing,
    tps,
)

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet


async def until_tasks_are(expected: AbstractSet[asyncio.Task[object]]) -> None:
    """Tasks that are done leave at their next turn; any other stays and is named."""
    try:
        async with asyncio.timeout(5.0):
            while left := asyncio.all_tasks() - expected:
                await asyncio.wait(left)
    except TimeoutError:
        pytest.fail(f"left running: {asyncio.all_tasks() - expected}")


async def test_nothing_is_left_running(broker: Broker) -> None:
    before = asyncio.all_tasks()
    topic = await make_topic(broker, partitions=2)
    group = fresh("group")
    async with (
        producing(broker) as producer,
        member(broker, group, topic, name="one") as one,
        member(broker, group, topic, name="two"),
    ):
        await producer.send(topic, key=b"k", value=b"v")
        await one.listener.until(lambda: bool(one.listener.held))
    await until_tasks_are(before)


async def test_making_clients_does_nothing(broker: Broker) -> None:
    before = asyncio.all_tasks()
    broker.consumer(consumer_settings(fresh("group")))
    broker.producer(ProducerSettings(client_id="c", compression=None, partitioner="crc32"))
    broker.admin()
    assert asyncio.all_tasks() == before


async def test_stopping_what_never_started(broker: Broker) -> None:
    for client in (
        broker.consumer(consumer_settings(fresh("group"))),
        broker.producer(ProducerSettings(client_id="c", compression=None, partitioner="crc32")),
        broker.admin(),
    ):
        await client.stop()
        await client.stop()


async def test_stopping_twice(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    consumer = broker.consumer(consumer_settings(fresh("group")))
    await consumer.start([topic], Recorder())
    async with asyncio.timeout(DEADLINE_S):
        await consumer.stop()
        await consumer.stop()


async def test_a_stopped_consumer_refuses(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    [tp] = tps(topic, 0)
    consumer = broker.consumer(consumer_settings(fresh("group")))
    listener = Recorder()
    await consumer.start([topic], listener)
    await listener.until_holds([tp])
    await consumer.stop()
    with pytest.raises(BrokerError):
        await consumer.poll([tp], max_records=1, timeout_s=0)
    with pytest.raises(BrokerError):
        await consumer.commit({tp: OffsetAndMetadata(0)})


async def test_stopping_ends_a_waiting_poll(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    consumer = broker.consumer(consumer_settings(fresh("group")))
    listener = Recorder()
    await consumer.start([topic], listener)
    await listener.until_holds(tps(topic, 0))
    waiting = asyncio.create_task(consumer.poll(tps(topic, 0), max_records=1, timeout_s=300.0))
    await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE_S):
        await consumer.stop()
        await asyncio.wait((waiting,))
    if not waiting.cancelled() and waiting.exception() is None:
        assert not waiting.result()
    else:
        assert isinstance(waiting.exception(), BrokerError)


async def test_stopping_at_once_after_starting(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    before = asyncio.all_tasks()
    consumer = broker.consumer(consumer_settings(fresh("group")))
    listener = Recorder()
    async with asyncio.timeout(DEADLINE_S):
        await consumer.start([topic], listener)
        await consumer.stop()
    told = len(listener.events)
    await until_tasks_are(before)
    assert len(listener.events) == told


async def test_stopping_during_a_revoke_cancels_it(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=2)
    group = fresh("group")
    before = asyncio.all_tasks()
    async with member(broker, group, topic, name="slow") as slow:
        await slow.listener.until_holds(tps(topic, 0, 1))
        cancelled = asyncio.Event()

        async def hang(_: frozenset[TopicPartition]) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        slow.listener.revoked_hook = hang
        async with member(broker, group, topic, name="waits") as waits:
            await slow.listener.until(lambda: slow.listener.running == 1)
            told = len(slow.listener.events)
            async with asyncio.timeout(DEADLINE_S):
                await slow.leave()
            assert cancelled.is_set()
            assert slow.listener.running == 0
            assert len(slow.listener.events) == told
            await waits.listener.until_holds(tps(topic, 0, 1))
    await until_tasks_are(before)


async def test_problems_are_told_of_and_none_is_there(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    async with member(broker, fresh("group"), topic) as who:
        await who.listener.until_holds(tps(topic, 0))
        await who.consumer.settled()
        assert who.consumer.problem is None
        with pytest.raises(BrokerError, match="started before"):
            await who.consumer.start([topic], Recorder())
