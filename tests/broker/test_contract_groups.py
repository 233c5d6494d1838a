"""Groups: every partition in one hand, handed over in order, and nobody else stops for it."""

from __future__ import annotations

import asyncio
from collections import Counter

from prosody.broker.partitioners import partition_for
from prosody.broker.protocol import Broker, OffsetAndMetadata
from tests.broker.members import (
    DEADLINE_S,
    Ledger,
    Recorder,
    consumer_settings,
    fill,
    fresh,
    make_topic,
    member,
    producing,
    tps,
)


async def test_one_member_gets_all_partitions_of_all_topics(broker: Broker) -> None:
    one = await make_topic(broker, partitions=3)
    two = await make_topic(broker, partitions=2)
    async with member(broker, fresh("group"), one, two) as alone:
        await alone.listener.until_holds(tps(one, 0, 1, 2) | tps(two, 0, 1))


async def test_two_members_share_and_no_partition_is_in_two_hands(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=4)
    group, ledger = fresh("group"), Ledger()
    async with member(broker, group, topic, name="first", ledger=ledger) as first:
        await first.listener.until_holds(tps(topic, 0, 1, 2, 3))
        async with member(broker, group, topic, name="second", ledger=ledger) as second:
            await second.listener.until(lambda: len(second.listener.held) == 2)
            await first.listener.until(lambda: len(first.listener.held) == 2)
            assert first.listener.held | second.listener.held == tps(topic, 0, 1, 2, 3)
        await first.listener.until_holds(tps(topic, 0, 1, 2, 3))
    assert ledger.faults == []
    assert "lost" not in first.listener.names() + second.listener.names()


async def test_each_record_reaches_one_member_and_the_rest_goes_on(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=4)
    group, ledger = fresh("group"), Ledger()
    keys = [b"%d" % n for n in range(16)]
    async with (
        producing(broker) as producer,
        member(broker, group, topic, name="first", ledger=ledger) as first,
        member(broker, group, topic, name="second", ledger=ledger) as second,
    ):
        await second.listener.until(lambda: len(second.listener.held) == 2)
        await first.listener.until(lambda: len(first.listener.held) == 2)
        for key in keys:
            await fill(producer, topic, [b"1"], key)
        shares = Counter(partition_for("crc32", key, 4, lambda: 0.0) for key in keys)
        for who in (first, second):
            await who.until_read(sum(shares[tp.partition] for tp in who.listener.held))
            assert {r.partition for r in who.records} == {tp.partition for tp in who.listener.held}
        everything = [r.key for r in first.records + second.records]
        assert sorted(filter(None, everything)) == sorted(keys)
        assert first.records
        assert second.records
    assert ledger.faults == []


async def test_the_partitions_of_a_member_that_leaves_go_to_the_other(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=2)
    group, ledger = fresh("group"), Ledger()
    async with (
        producing(broker) as producer,
        member(broker, group, topic, name="stays", ledger=ledger) as stays,
    ):
        async with member(broker, group, topic, name="leaves", ledger=ledger) as leaves:
            await leaves.listener.until(lambda: len(leaves.listener.held) == 1)
            [moved] = leaves.listener.held
            await leaves.consumer.commit({moved: OffsetAndMetadata(0, "by the other")})
            seen = len(leaves.listener.events)
        await stays.listener.until_holds(tps(topic, 0, 1))
        assert stays.listener.events[-1][0] == "assigned"
        assert moved in stays.listener.events[-1][1]
        assert await stays.consumer.committed([moved]) == {moved: (0, "by the other")}
        # What it still held was given up without a call.
        assert len(leaves.listener.events) == seen
        await fill(producer, topic, [b"x"], b"a")
        await stays.until_read(1)
    assert ledger.faults == []


async def test_reading_begins_where_the_listener_seeks_to(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    [tp] = tps(topic, 0)
    consumer = broker.consumer(consumer_settings(fresh("group")))
    listener = Recorder()
    listener.assigned_hook = lambda _: consumer.seek(tp, 2)
    async with producing(broker) as producer, asyncio.timeout(DEADLINE_S):
        await fill(producer, topic, [b"0", b"1", b"2", b"3"])
        await consumer.start([topic], listener)
        try:
            found: list[int] = []
            while not found:  # one record at a time, from before the assignment on
                polled = await consumer.poll([tp], max_records=1, timeout_s=0.2)
                assert not polled or listener.held
                found = [r.offset for r in polled.get(tp, ())]
            assert found == [2]
        finally:
            await consumer.stop()


async def test_more_members_than_partitions(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    group, ledger = fresh("group"), Ledger()
    async with member(broker, group, topic, name="first", ledger=ledger) as first:
        await first.listener.until_holds(tps(topic, 0))
        async with member(broker, group, topic, name="spare", ledger=ledger) as spare:
            async with member(broker, group, topic, name="third", ledger=ledger):
                assert not spare.listener.held or not first.listener.held
            await first.leave()
            await spare.listener.until_holds(tps(topic, 0))
    assert ledger.faults == []
