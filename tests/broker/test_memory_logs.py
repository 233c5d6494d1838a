"""Logs that change under their readers: retention, a lost end, a topic made anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from prosody.broker.protocol import OffsetAndMetadata, Start, TopicPartition
from prosody.errors import BrokerError
from tests.broker.members import consuming, fill, member, producing, read, tps

if TYPE_CHECKING:
    from prosody.broker.memory import MemoryBroker


async def test_retention_goes_no_further_than_the_end(memory: MemoryBroker) -> None:
    memory.cluster.create_topic("t", 1)
    [tp] = tps("t", 0)
    async with producing(memory) as producer, consuming(memory, "t", 0) as consumer:
        await fill(producer, "t", [b"%d" % n for n in range(10)])
        memory.cluster.truncate("t", 0, 1_000)
        assert await consumer.end_offsets([tp]) == {tp: 10}
        await fill(producer, "t", [b"10"])
        assert [r.offset for r in await read(consumer, [tp], 1)] == [10]
    for change in (memory.cluster.truncate, memory.cluster.cut_off, memory.cluster.forget):
        with pytest.raises(BrokerError, match="t:1 does not exist"):
            change("t", 1, 0)


async def test_what_was_cut_off_is_lost_and_assigned_again(
    memory: MemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    memory.cluster.create_topic("t", 1)
    [tp] = tps("t", 0)
    async with producing(memory) as producer, member(memory, "g", "t") as who:
        await fill(producer, "t", [b"old"] * 10)
        await who.until_read(10)
        await who.consumer.commit({tp: OffsetAndMetadata(8, "note")})
        memory.cluster.cut_off("t", 0, 5)
        # Grown past the position again before the member has looked: still another log.
        await fill(producer, "t", [b"new"] * 7)
        await who.listener.until(lambda: who.listener.names() == ["assigned", "lost", "assigned"])
        # The committed offset lies within the log that is there now, so it counts.
        assert who.listener.starts == {tp: Start(8, "note", 12)}
        assert [r.offset for r in (await who.until_read(14))[10:]] == [8, 9, 10, 11]
        memory.cluster.cut_off("t", 0, 5)
        await who.listener.until(lambda: who.listener.names().count("lost") == 2)
        await who.listener.until_holds([tp])
        assert who.listener.starts == {tp: Start(0, "", 5)}
        await who.until_read(19)
    assert caplog.text.count("offset 8 lies beyond the end 5") == 1


async def test_a_listener_that_always_seeks_beyond_the_end_lets_others_run(
    memory: MemoryBroker,
) -> None:
    memory.cluster.create_topic("t", 1)
    [tp] = tps("t", 0)
    async with member(memory, "g", "t") as who:
        await who.listener.until_holds([tp])
        who.listener.assigned_hook = lambda _: who.consumer.seek(tp, 50)
        who.consumer.seek(tp, 50)
        await who.listener.until(lambda: who.listener.names().count("lost") == 5)


async def test_who_has_not_read_so_far_does_not_notice_the_cut(memory: MemoryBroker) -> None:
    memory.cluster.create_topic("t", 1)
    [tp] = tps("t", 0)
    async with producing(memory) as producer, consuming(memory, "t", 0) as consumer:
        await fill(producer, "t", [b"old"] * 10)
        found = await consumer.poll([tp], max_records=5, timeout_s=1.0)
        assert [r.offset for r in found[tp]] == [0, 1, 2, 3, 4]
        memory.cluster.cut_off("t", 0, 5)
        memory.cluster.cut_off("t", 0, 50)  # nothing is there to vanish
        await fill(producer, "t", [b"new"] * 2)
        assert [r.value for r in await read(consumer, [tp], 2)] == [b"new", b"new"]
        await fill(producer, "t", [b"newer"])
        assert [r.value for r in await read(consumer, [tp], 1)] == [b"newer"]


async def test_a_deleted_topic_takes_its_offsets_with_it(memory: MemoryBroker) -> None:
    memory.cluster.create_topic("t", 1)
    [tp] = tps("t", 0)
    async with producing(memory) as producer, member(memory, "g", "t") as who:
        await fill(producer, "t", [b"old"] * 3)
        await who.until_read(3)
        await who.consumer.commit({tp: OffsetAndMetadata(3)})
        memory.cluster.delete_topic("t")
        memory.cluster.create_topic("t", 1)
        await fill(producer, "t", [b"new"] * 5)  # longer than what was read before
        await who.listener.until(lambda: who.listener.names() == ["assigned", "lost", "assigned"])
        assert await who.consumer.committed([tp]) == {tp: None}
        assert [r.value for r in (await who.until_read(8))[3:]] == [b"new"] * 5


async def test_a_topic_deleted_while_it_is_revoked_is_lost_once(memory: MemoryBroker) -> None:
    memory.cluster.create_topic("t", 2)
    async with member(memory, "g", "t", name="one") as one:
        await one.listener.until_holds(tps("t", 0, 1))

        async def delete(_: frozenset[TopicPartition]) -> None:
            memory.cluster.delete_topic("t")

        one.listener.revoked_hook = delete
        async with member(memory, "g", "t", name="two"):
            await one.listener.until(lambda: "lost" in one.listener.names())
            assert one.listener.held == set()
    [revoked] = [p for name, p in one.listener.events if name == "revoked"]
    # Its revoke had returned before anybody could be told of the loss.
    assert [p for name, p in one.listener.events if name == "lost"] == [tps("t", 0, 1) - revoked]


async def test_gaps_are_read_over_and_their_offsets_stay(memory: MemoryBroker) -> None:
    memory.cluster.create_topic("t", 1)
    [tp] = tps("t", 0)
    async with producing(memory) as producer, consuming(memory, "t", 0) as consumer:
        await fill(producer, "t", [b"%d" % n for n in range(10)])
        memory.cluster.forget("t", 0, 0, 2, 3, 8, 9, 10, -1)
        found = await consumer.poll([tp], max_records=2, timeout_s=1.0)
        assert [r.offset for r in found[tp]] == [1, 4]
        found = await consumer.poll([tp], max_records=100, timeout_s=1.0)
        assert [r.offset for r in found[tp]] == [5, 6, 7]
        assert await consumer.poll([tp], max_records=100, timeout_s=0.0) == {}
        assert await consumer.end_offsets([tp]) == {tp: 10}
        await fill(producer, "t", [b"10"])
        assert [r.offset for r in await read(consumer, [tp], 1)] == [10]
    with memory.cluster.lock:
        [log] = memory.cluster.logs("t")
        log.truncate(3)
        assert [r.offset for r in log.read(0, 2)] == [4, 5]
        log.cut_off(9)
        assert (log.end, log.read(8, 5)) == (9, [])


async def test_compaction_keeps_the_last_record_of_each_key(memory: MemoryBroker) -> None:
    memory.cluster.create_topic("t", 1)
    async with producing(memory) as producer:
        for key in (b"a", b"b", b"c", b"a", b"c", b"d", b"b"):
            await producer.send("t", key=key, value=b"")
    memory.cluster.truncate("t", 0, 1)
    memory.cluster.compact("t", 0)
    memory.cluster.compact("t", 0)
    [log] = memory.cluster.logs("t")
    assert [(r.offset, r.key) for r in log.read(0, 10)] == [
        (3, b"a"), (4, b"c"), (5, b"d"), (6, b"b"),
    ]  # fmt: skip
