"""Topics: made, deleted, listed, missing, and found by regular expression."""

from __future__ import annotations

import asyncio

import pytest

from prosody.broker.protocol import Broker
from prosody.errors import BrokerError, TopicsNotFoundError
from tests.broker.levers import Levers
from tests.broker.members import (
    DEADLINE_S,
    Recorder,
    consumer_settings,
    fill,
    fresh,
    make_topic,
    member,
    producing,
    tps,
)


async def test_a_topic_is_made_listed_and_deleted(broker: Broker) -> None:
    topic = fresh("topic")
    admin = broker.admin()
    try:
        assert topic not in await admin.topics()
        await admin.create_topic(topic, partitions=3, replication_factor=1)
        assert topic in await admin.topics()
        async with member(broker, fresh("group"), topic) as who:
            await who.listener.until_holds(tps(topic, 0, 1, 2))
        await admin.delete_topic(topic)
        async with asyncio.timeout(DEADLINE_S):
            while topic in await admin.topics():
                pass  # a real broker deletes a little later; each look is a round trip
    finally:
        await admin.stop()
        await admin.stop()


async def test_a_topic_can_be_made_with_the_brokers_defaults_and_a_configuration(
    broker: Broker,
) -> None:
    topic = fresh("topic")
    admin = broker.admin()
    try:
        await admin.create_topic(topic, config={"cleanup.policy": "compact"})
        assert topic in await admin.topics()
    finally:
        await admin.stop()


async def test_making_a_topic_twice_is_refused(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    admin = broker.admin()
    try:
        with pytest.raises(BrokerError, match=f"{topic}.*already exists") as caught:
            await admin.create_topic(topic, partitions=1, replication_factor=1)
        assert not caught.value.retriable
    finally:
        await admin.stop()


@pytest.mark.parametrize("name", ["", "bad name", "slash/ed", "x" * 250, ".."])
async def test_an_impossible_name_is_refused(broker: Broker, name: str) -> None:
    admin = broker.admin()
    try:
        with pytest.raises(BrokerError) as caught:
            await admin.create_topic(name, partitions=1, replication_factor=1)
        assert not caught.value.retriable
    finally:
        await admin.stop()


async def test_no_partitions_are_refused(broker: Broker) -> None:
    admin = broker.admin()
    try:
        with pytest.raises(BrokerError):
            await admin.create_topic(fresh("topic"), partitions=0, replication_factor=1)
    finally:
        await admin.stop()


async def test_deleting_a_missing_topic_is_refused(broker: Broker) -> None:
    topic = fresh("missing")
    admin = broker.admin()
    try:
        with pytest.raises(BrokerError, match=topic):
            await admin.delete_topic(topic)
    finally:
        await admin.stop()


async def test_every_missing_topic_is_named_and_nothing_is_left_behind(broker: Broker) -> None:
    there, one, two = await make_topic(broker, partitions=1), fresh("missing"), fresh("missing")
    before = asyncio.all_tasks()
    consumer = broker.consumer(consumer_settings(fresh("group")))
    with pytest.raises(TopicsNotFoundError) as caught:
        await consumer.start([one, there, two, "^never-.*"], Recorder())
    assert caught.value.topics == tuple(sorted((one, two)))
    await consumer.stop()
    assert asyncio.all_tasks() == before


async def test_a_regular_expression_finds_topics_and_mixes_with_names(broker: Broker) -> None:
    word = fresh("re")
    for tail in ("-a", "-b"):
        await make_topic(broker, partitions=1, name=word + tail)
    plain = await make_topic(broker, partitions=1)
    await make_topic(broker, partitions=1, name=f"not-{word}-a")
    async with member(broker, fresh("group"), f"^{word}-[ab]$", plain) as who:
        expected = tps(f"{word}-a", 0) | tps(f"{word}-b", 0) | tps(plain, 0)
        await who.listener.until_holds(expected)


async def test_a_regular_expression_finds_topics_made_later(broker: Broker) -> None:
    word = fresh("re")
    async with (
        producing(broker) as producer,
        member(broker, fresh("group"), f"^{word}-.*") as who,
    ):
        topic = await make_topic(broker, partitions=2, name=f"{word}-late")
        await who.listener.until_holds(tps(topic, 0, 1))
        await fill(producer, topic, [b"v"])
        assert [r.value for r in await who.until_read(1)] == [b"v"]


async def test_how_many_partitions_a_topic_has(broker: Broker, levers: Levers) -> None:
    topic = await make_topic(broker, partitions=2)
    other = await make_topic(broker, partitions=5)
    async with member(broker, fresh("group"), topic) as who:
        consumer = who.consumer
        assert await consumer.partition_count(topic) == 2
        assert await consumer.partition_count(other) == 5  # not subscribed
        with pytest.raises(BrokerError, match="does not exist") as caught:
            await consumer.partition_count(fresh("missing"))
        assert caught.value.retriable
        await levers.add_partitions(topic, 3)
        async with asyncio.timeout(DEADLINE_S):
            # Until the next update of the metadata; nobody tells of it.
            while await consumer.partition_count(topic) != 3:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    stopped = broker.consumer(consumer_settings(fresh("group")))
    with pytest.raises(BrokerError, match="not started"):
        await stopped.partition_count(topic)
