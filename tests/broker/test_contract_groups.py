"""Groups: every partition in one hand, handed over in order, never two listener calls at once."""

from __future__ import annotations

import asyncio
from collections import Counter

from prosody.broker.partitioners import partition_for
from prosody.broker.protocol import Broker, OffsetAndMetadata, TopicPartition
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
    assert not first.listener.overlapped
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


async def test_a_slow_listener_holds_back_only_the_handover(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=2)
    group, ledger = fresh("group"), Ledger()
    gate = asyncio.Event()
    async with member(broker, group, topic, name="slow", ledger=ledger) as slow:
        await slow.listener.until_holds(tps(topic, 0, 1))

        async def wait(_: frozenset[TopicPartition]) -> None:
            await gate.wait()

        slow.listener.revoked_hook = wait
        async with member(broker, group, topic, name="waits", ledger=ledger) as waits:
            await slow.listener.until(lambda: "revoked" in slow.listener.names())
            revoked = slow.listener.events[-1][1]
            # Room for a broker to make the mistake: a round trip of its own.
            await make_topic(broker, partitions=1)
            assert not waits.listener.held & revoked
            gate.set()
            await waits.listener.until(lambda: len(waits.listener.held) == 1)
    assert ledger.faults == []


async def test_an_assigned_partition_is_polled_only_after_the_listener_returned(
    broker: Broker,
) -> None:
    topic = await make_topic(broker, partitions=1)
    [tp] = tps(topic, 0)
    gate, begun = asyncio.Event(), asyncio.Event()
    consumer = broker.consumer(consumer_settings(fresh("group")))
    listener = Recorder()

    async def seek_and_wait(_: frozenset[TopicPartition]) -> None:
        assert await consumer.committed([tp]) == {tp: None}
        consumer.seek(tp, 2)
        begun.set()
        await gate.wait()

    listener.assigned_hook = seek_and_wait
    async with producing(broker) as producer, asyncio.timeout(DEADLINE_S):
        await fill(producer, topic, [b"0", b"1", b"2", b"3"])
        await consumer.start([topic], listener)
        try:
            await begun.wait()
            assert not await consumer.poll([tp], max_records=10, timeout_s=0.2)
            waiting = asyncio.create_task(consumer.poll([tp], max_records=1, timeout_s=30.0))
            await asyncio.sleep(0)
            gate.set()
            await listener.until_holds([tp])
            found: list[int] = []
            while not found:
                polled = await waiting
                found = [r.offset for r in polled.get(tp, ())]
                if not found:
                    waiting = asyncio.create_task(
                        consumer.poll([tp], max_records=1, timeout_s=30.0)
                    )
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
