"""Cooperation: what stays never stops, a slow revoke delays only what it gives up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from prosody.broker.partitioners import partition_for
from prosody.broker.protocol import Broker, OffsetAndMetadata, TopicPartition
from prosody.errors import BrokerError
from tests.broker.members import (
    Ledger,
    Member,
    fill,
    fresh,
    make_topic,
    member,
    producing,
    tps,
)

if TYPE_CHECKING:
    from prosody.broker.protocol import BrokerProducer
    from tests.broker.levers import Levers


def key_in(partition: int, count: int) -> bytes:
    """A key of that partition."""
    return next(
        key
        for n in range(1000)
        if partition_for("crc32", key := b"%d" % n, count, lambda: 0.0) == partition
    )


async def fill_all(producer: BrokerProducer, topic: str, count: int, value: bytes) -> None:
    """One record in each of ``count`` partitions."""
    for partition in range(count):
        await fill(producer, topic, [value], key_in(partition, count))


def offsets(who: Member, tp: TopicPartition) -> list[int]:
    return [r.offset for r in who.records if (r.topic, r.partition) == tp]


class Gate:
    """A revoke that takes as long as the test wants."""

    def __init__(self, who: Member) -> None:
        self.opened = asyncio.Event()
        who.listener.revoked_hook = self.wait

    async def wait(self, _: frozenset[TopicPartition]) -> None:
        await self.opened.wait()


async def test_what_is_kept_is_not_mentioned_and_keeps_its_position(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=4)
    group, ledger = fresh("group"), Ledger()
    async with producing(broker) as producer:
        await fill_all(producer, topic, 4, b"before")
        async with member(broker, group, topic, name="first", ledger=ledger) as first:
            await first.until_read(4)  # and commits nothing
            async with member(broker, group, topic, name="second", ledger=ledger) as second:
                await second.listener.until(lambda: len(second.listener.held) == 2)
                moved = frozenset(second.listener.held)
                kept = tps(topic, 0, 1, 2, 3) - moved
                await first.listener.until_holds(kept)
                await fill_all(producer, topic, 4, b"after")
                await first.until_read(6)
                await second.until_read(4)
                told = first.listener.events[1:]
                assert all(name == "revoked" for name, _ in told)
                assert frozenset[TopicPartition]().union(*(told_of for _, told_of in told)) == moved
            # The other one is gone: nothing is said of what is kept this time either.
            await first.listener.until_holds(kept | moved)
            assert all(first.listener.times("assigned", tp) == 1 for tp in kept)
            assert all(first.listener.times("assigned", tp) == 2 for tp in moved)
            await first.until_read(10)
            for tp in kept:
                assert offsets(first, tp) == [0, 1]
            for tp in moved:
                assert offsets(first, tp) == [0, 0, 1]
                assert offsets(second, tp) == [0, 1]


async def test_a_slow_revoke_delays_neither_records_nor_assignments_of_others(
    broker: Broker,
) -> None:
    topic = await make_topic(broker, partitions=2)
    group, ledger = fresh("group"), Ledger()
    async with (
        producing(broker) as producer,
        member(broker, group, topic, f"^{topic}-.*", name="slow", ledger=ledger) as slow,
    ):
        await slow.listener.until_holds(tps(topic, 0, 1))
        gate = Gate(slow)
        async with member(broker, group, topic, name="waits", ledger=ledger) as waits:
            await slow.listener.until(lambda: slow.listener.running == 1)
            [revoked] = slow.listener.revoking
            [kept] = slow.listener.held - {revoked}
            await fill_all(producer, topic, 2, b"v")
            await slow.until_read(1)
            assert offsets(slow, kept) == [0]
            # Others are assigned meanwhile.
            later = await make_topic(broker, partitions=1, name=f"{topic}-later")
            await slow.listener.until(lambda: tps(later, 0) <= slow.listener.held)
            await fill(producer, later, [b"v"])
            await slow.until_read(2)
            assert slow.listener.revoking == {revoked}
            assert offsets(slow, revoked) == []
            assert waits.listener.held == set()
            gate.opened.set()
            await waits.listener.until_holds([revoked])
            await waits.until_read(1)


async def test_two_revokes_do_not_wait_for_each_other(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=4)
    group, ledger = fresh("group"), Ledger()
    async with member(broker, group, topic, name="slow", ledger=ledger) as slow:
        await slow.listener.until_holds(tps(topic, 0, 1, 2, 3))
        gate = asyncio.Event()
        stuck: set[TopicPartition] = set()

        async def hold_the_first(partitions: frozenset[TopicPartition]) -> None:
            assert len(partitions) == 1
            if not stuck:
                stuck.update(partitions)
                await gate.wait()

        slow.listener.revoked_hook = hold_the_first
        async with member(broker, group, topic, name="waits", ledger=ledger) as waits:
            await waits.listener.until(lambda: len(waits.listener.held) == 1)
            assert stuck == slow.listener.revoking
            assert not waits.listener.held & stuck
            gate.set()
            await waits.listener.until(lambda: len(waits.listener.held) == 2)


async def test_commits_work_until_the_revoke_ends(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=2)
    group, ledger = fresh("group"), Ledger()
    async with (
        producing(broker) as producer,
        member(broker, group, topic, name="slow", ledger=ledger) as slow,
    ):
        await fill_all(producer, topic, 2, b"v")
        await slow.until_read(2)
        gate = Gate(slow)
        async with member(broker, group, topic, name="waits", ledger=ledger) as waits:
            await slow.listener.until(lambda: slow.listener.running == 1)
            [revoked] = slow.listener.revoking
            await slow.consumer.settled()
            await slow.consumer.commit({revoked: OffsetAndMetadata(1, "while it is revoked")})
            gate.opened.set()
            await waits.listener.until_holds([revoked])
            assert waits.listener.starts[revoked] == (1, "while it is revoked", 1)
            await slow.listener.until(lambda: revoked not in slow.listener.held)
            await slow.consumer.settled()
            with pytest.raises(BrokerError) as caught:
                await slow.consumer.commit({revoked: OffsetAndMetadata(0)})
            assert not caught.value.retriable
            assert await waits.consumer.committed([revoked]) == {
                revoked: (1, "while it is revoked")
            }


async def test_a_partition_can_be_lost_while_it_is_revoked(broker: Broker, levers: Levers) -> None:
    topic = await make_topic(broker, partitions=2)
    group = fresh("group")
    # Each with a ledger of its own: a partition is given on before who is thrown out hears of it.
    async with member(broker, group, topic, name="slow") as slow:
        await slow.listener.until_holds(tps(topic, 0, 1))
        gate = Gate(slow)
        async with member(broker, group, topic, name="waits") as waits:
            await slow.listener.until(lambda: slow.listener.running == 1)
            [revoked] = slow.listener.revoking
            await levers.expel(group, "slow", slow.consumer)
            await slow.listener.until(lambda: "lost" in slow.listener.names())
            assert slow.listener.running == 1  # the call goes on
            [lost] = [given for name, given in slow.listener.events if name == "lost"]
            assert lost == tps(topic, 0, 1)
            if revoked not in slow.listener.held:  # it may be back already
                with pytest.raises(BrokerError):
                    await slow.consumer.commit({revoked: OffsetAndMetadata(0)})
            # It is back with a share of its own, which the old call must not give away.
            await slow.listener.until(lambda: len(slow.listener.held) == 1)
            await waits.listener.until(lambda: len(waits.listener.held) == 1)
            [mine] = slow.listener.held
            gate.opened.set()
            await slow.listener.until(lambda: slow.listener.running == 0)
            await slow.consumer.settled()
            await slow.consumer.commit({mine: OffsetAndMetadata(0)})
            assert slow.listener.held == {mine}


async def test_added_partitions_come_and_the_others_stay(broker: Broker, levers: Levers) -> None:
    topic = await make_topic(broker, partitions=2)
    group, ledger = fresh("group"), Ledger()
    async with (
        producing(broker) as producer,
        member(broker, group, topic, name="one", ledger=ledger) as one,
        member(broker, group, topic, name="two", ledger=ledger) as two,
    ):
        await one.listener.until(lambda: len(one.listener.held) == 1)
        await two.listener.until(lambda: len(two.listener.held) == 1)
        before = [set(one.listener.held), set(two.listener.held)]
        told = [len(one.listener.events), len(two.listener.events)]
        await levers.add_partitions(topic, 4)
        await one.listener.until(lambda: len(one.listener.held) == 2)
        await two.listener.until(lambda: len(two.listener.held) == 2)
        for who, had, known in zip((one, two), before, told, strict=True):
            assert had < who.listener.held
            assert who.listener.events[known:] == [("assigned", frozenset(who.listener.held - had))]
        await fill_all(producer, topic, 4, b"v")
        await one.until_read(2)
        await two.until_read(2)


async def test_a_leaving_member_is_given_nothing_more(broker: Broker, levers: Levers) -> None:
    topic = await make_topic(broker, partitions=2)
    group, ledger = fresh("group"), Ledger()
    async with (
        producing(broker) as producer,
        member(broker, group, topic, name="stays", ledger=ledger) as stays,
    ):
        async with member(broker, group, topic, name="leaves", ledger=ledger) as leaves:
            await leaves.listener.until(lambda: len(leaves.listener.held) == 1)
            await stays.listener.until(lambda: len(stays.listener.held) == 1)
            leaves.consumer.leaving()
            await levers.add_partitions(topic, 5)
            # What it held already may be asked of it now, or be free when it stops.
            await stays.listener.until(lambda: tps(topic, 2, 3, 4) <= stays.listener.held)
            assert leaves.listener.names().count("assigned") == 1
        await stays.listener.until_holds(tps(topic, 0, 1, 2, 3, 4))
        await fill_all(producer, topic, 5, b"v")
        await stays.until_read(5)


async def test_what_a_leaving_member_has_drained_moves_before_its_slowest(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=6)
    group, ledger = fresh("group"), Ledger()
    async with (
        producing(broker) as producer,
        member(broker, group, topic, name="stays", ledger=ledger) as stays,
    ):
        async with member(broker, group, topic, name="leaves", ledger=ledger) as leaves:
            await leaves.listener.until(lambda: len(leaves.listener.held) == 3)
            await stays.listener.until(lambda: len(stays.listener.held) == 3)
            slow, *_ = sorted(leaves.listener.held)
            opened = asyncio.Event()

            async def drain(partitions: frozenset[TopicPartition]) -> None:
                if slow in partitions:
                    await opened.wait()

            leaves.listener.revoked_hook = drain
            leaves.consumer.leaving()
            others = tps(topic, 0, 1, 2, 3, 4, 5) - {slow}
            await stays.listener.until_holds(others)
            assert leaves.listener.held == {slow}
            await leaves.consumer.settled()
            await leaves.consumer.commit({slow: OffsetAndMetadata(0, "drained")})
            opened.set()
            await stays.listener.until_holds(others | {slow})
            assert stays.listener.starts[slow].metadata == "drained"
        await fill_all(producer, topic, 6, b"v")
        await stays.until_read(6)
