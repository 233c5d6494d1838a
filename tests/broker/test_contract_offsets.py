"""Committing: what is kept, for whom, from where reading goes on, and who is refused."""

from __future__ import annotations

import pytest

from prosody.broker.protocol import Broker, OffsetAndMetadata, TopicPartition
from prosody.errors import BrokerError, CommitMetadataTooLargeError
from tests.broker.members import (
    Member,
    consuming,
    fill,
    fresh,
    make_topic,
    member,
    producing,
    read,
    tps,
)


async def test_nothing_is_committed_at_first(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=2)
    async with consuming(broker, topic, 0, 1) as consumer:
        assert await consumer.committed(tps(topic, 0, 1)) == dict.fromkeys(tps(topic, 0, 1))


async def test_a_commit_keeps_offset_and_metadata(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=2)
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    async with producing(broker) as producer, consuming(broker, topic, 0, 1) as consumer:
        await fill(producer, topic, [b""] * 3)
        await consumer.commit({zero: OffsetAndMetadata(2, "v1:note é")})
        assert await consumer.committed([zero, one]) == {
            zero: OffsetAndMetadata(2, "v1:note é"),
            one: None,
        }
        await consumer.commit({zero: OffsetAndMetadata(1), one: OffsetAndMetadata(0, "x" * 4000)})
        assert await consumer.committed([zero, one]) == {
            zero: OffsetAndMetadata(1, ""),
            one: OffsetAndMetadata(0, "x" * 4000),
        }
        await consumer.commit({})


async def test_a_new_member_goes_on_from_the_committed_offset(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    group = fresh("group")
    [tp] = tps(topic, 0)
    async with producing(broker) as producer:
        await fill(producer, topic, [b"%d" % n for n in range(6)])
        async with consuming(broker, topic, 0, group_id=group) as first:
            assert len(await read(first, [tp], 6)) == 6  # read, and committed only in part
            await first.commit({tp: OffsetAndMetadata(4, "note")})
        async with consuming(broker, topic, 0, group_id=group) as second:
            assert await second.committed([tp]) == {tp: (4, "note")}
            assert [r.offset for r in await read(second, [tp], 2)] == [4, 5]


async def test_without_a_commit_the_earliest_record_comes_first(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    group = fresh("group")
    [tp] = tps(topic, 0)
    async with producing(broker) as producer:
        await fill(producer, topic, [b"old"])
        for _ in range(2):  # the first one reads and does not commit
            async with consuming(broker, topic, 0, group_id=group) as consumer:
                assert [r.value for r in await read(consumer, [tp], 1)] == [b"old"]


async def test_two_groups_have_nothing_in_common(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    [tp] = tps(topic, 0)
    async with (
        producing(broker) as producer,
        consuming(broker, topic, 0) as one,
        consuming(broker, topic, 0) as other,
    ):
        await fill(producer, topic, [b"a", b"b"])
        assert len(await read(one, [tp], 2)) == 2
        await one.commit({tp: OffsetAndMetadata(2)})
        assert await other.committed([tp]) == {tp: None}
        assert len(await read(other, [tp], 2)) == 2


async def test_a_commit_of_a_partition_not_assigned_is_refused_whole(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    other = await make_topic(broker, partitions=1)
    mine, foreign = TopicPartition(topic, 0), TopicPartition(other, 0)
    async with producing(broker) as producer, consuming(broker, topic, 0) as consumer:
        await fill(producer, topic, [b""])
        with pytest.raises(BrokerError) as caught:
            await consumer.commit({mine: OffsetAndMetadata(1), foreign: OffsetAndMetadata(0)})
        assert not caught.value.retriable
        assert await consumer.committed([mine]) == {mine: None}


async def test_a_note_that_is_too_long_is_refused(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    [tp] = tps(topic, 0)
    async with producing(broker) as producer, consuming(broker, topic, 0) as consumer:
        await fill(producer, topic, [b""] * 2)
        await consumer.commit({tp: OffsetAndMetadata(1, "x" * 4096)})
        with pytest.raises(CommitMetadataTooLargeError) as caught:
            await consumer.commit({tp: OffsetAndMetadata(2, "x" * 4097)})
        assert not caught.value.retriable
        assert await consumer.committed([tp]) == {tp: (1, "x" * 4096)}


async def test_revoked_partitions_can_be_committed_until_the_listener_returns(
    broker: Broker,
) -> None:
    topic = await make_topic(broker, partitions=2)
    group = fresh("group")
    async with producing(broker) as producer:
        for key in (b"a", b"b", b"c", b"d"):
            await fill(producer, topic, [b"1", b"2"], key)
        first = Member(broker, group, "first")
        committed: dict[TopicPartition, int] = {}

        async def commit_all(partitions: frozenset[TopicPartition]) -> None:
            ends = await first.consumer.end_offsets(partitions)
            await first.consumer.commit(
                {tp: OffsetAndMetadata(end, "revoked") for tp, end in ends.items()}
            )
            committed.update(ends)

        first.listener.revoked_hook = commit_all
        await first.join(topic)
        try:
            await first.listener.until_holds(tps(topic, 0, 1))
            await first.until_read(8)
            async with member(broker, group, topic, name="second") as second:
                await second.listener.until(lambda: len(second.listener.held) == 1)
                [moved] = second.listener.held
                assert moved in committed
                assert await second.consumer.committed([moved]) == {
                    moved: (committed[moved], "revoked")
                }
                assert second.records == []  # all of it was committed
                await first.listener.until(lambda: len(first.listener.held) == 1)
                with pytest.raises(BrokerError):
                    await first.consumer.commit({moved: OffsetAndMetadata(0)})
        finally:
            await first.leave()


async def test_the_end_is_known_by_what_was_fetched(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    [tp] = tps(topic, 0)
    async with producing(broker) as producer, consuming(broker, topic, 0) as consumer:
        await fill(producer, topic, [b""] * 5)
        assert len(await read(consumer, [tp], 5)) == 5
        assert consumer.known_end(tp) == 5
        await fill(producer, topic, [b""])
        assert len(await read(consumer, [tp], 1)) == 1
        assert consumer.known_end(tp) == 6
        assert consumer.known_end(TopicPartition(topic, 7)) is None
