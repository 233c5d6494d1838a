"""With one of aiokafka's own assignors everything is revoked at each rebalance and assigned again."""

from __future__ import annotations

import asyncio

import pytest

from prosody.broker.protocol import Broker, OffsetAndMetadata, Start, TopicPartition
from tests.broker.members import Ledger, fill, fresh, make_topic, member, producing, tps

pytestmark = pytest.mark.parametrize(
    "broker", [pytest.param("kafka", marks=pytest.mark.real)], indirect=True
)


async def test_everything_is_revoked_and_assigned_again_where_it_was_committed(
    broker: Broker,
) -> None:
    topic = await make_topic(broker, partitions=2)
    both = tps(topic, 0, 1)
    group, ledger = fresh("group"), Ledger()
    async with (
        producing(broker) as producer,
        member(broker, group, topic, name="first", ledger=ledger, assignor="sticky") as first,
    ):
        await first.listener.until_holds(both)
        await fill(producer, topic, [b"1", b"2"])
        [written] = {TopicPartition(topic, r.partition) for r in await first.until_read(2)}

        async def commit(partitions: frozenset[TopicPartition]) -> None:
            if written in partitions:
                await first.consumer.commit({written: OffsetAndMetadata(2, "in the revoke")})

        first.listener.revoked_hook = commit
        async with member(
            broker, group, topic, name="second", ledger=ledger, assignor="sticky"
        ) as second:
            await second.listener.until(lambda: len(second.listener.held) == 1)
            await first.listener.until(lambda: len(first.listener.held) == 1)
            revoked = [given for name, given in first.listener.events if name == "revoked"]
            assert frozenset[TopicPartition]().union(*revoked) == both
            assert first.listener.held | second.listener.held == both
            owner = first if written in first.listener.held else second
            assert owner.listener.starts[written] == Start(2, "in the revoke", 2)
    assert ledger.faults == []


async def test_two_members_with_roundrobin_share_and_lose_nothing(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=4)
    everything = tps(topic, 0, 1, 2, 3)
    group, ledger = fresh("group"), Ledger()
    async with (
        producing(broker) as producer,
        member(broker, group, topic, name="first", ledger=ledger, assignor="roundrobin") as first,
    ):
        await first.listener.until_holds(everything)
        async with member(
            broker, group, topic, name="second", ledger=ledger, assignor="roundrobin"
        ) as second:
            await second.listener.until(lambda: len(second.listener.held) == 2)
            await first.listener.until(lambda: len(first.listener.held) == 2)
            assert first.listener.held | second.listener.held == everything
            for key in range(40):
                await fill(producer, topic, [b"v"], b"%d" % key)
            for who in (first, second):
                mine = {tp for tp in who.listener.held if tp.topic == topic}
                ends = await who.consumer.end_offsets(mine)
                read = await who.until_read(sum(ends.values()))
                assert {(r.topic, r.partition) for r in read} <= mine
        await first.listener.until_holds(everything)
    assert len(first.records) + len(second.records) >= 40
    assert ledger.faults == []


async def test_the_whole_group_waits_for_a_slow_revoke(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=2)
    group, ledger = fresh("group"), Ledger()
    async with member(broker, group, topic, name="slow", ledger=ledger, assignor="sticky") as slow:
        await slow.listener.until_holds(tps(topic, 0, 1))
        gate = asyncio.Event()

        async def wait(_: frozenset[TopicPartition]) -> None:
            await gate.wait()

        slow.listener.revoked_hook = wait
        async with member(
            broker, group, topic, name="waits", ledger=ledger, assignor="sticky"
        ) as waits:
            await slow.listener.until(lambda: slow.listener.running > 0)
            await make_topic(broker, partitions=1)  # room to make the mistake: a round trip
            assert not waits.listener.held
            [tp, *_] = slow.listener.revoking
            await slow.consumer.commit({tp: OffsetAndMetadata(0, "still possible")})
            gate.set()
            await waits.listener.until(lambda: len(waits.listener.held) == 1)
            await slow.listener.until(lambda: len(slow.listener.held) == 1)
    assert ledger.faults == []
