"""Polling: what is asked for and nothing else, at once when something is there, woken when told to."""

from __future__ import annotations

import asyncio

from prosody.broker.partitioners import partition_for
from prosody.broker.protocol import Broker, TopicPartition
from tests.broker.members import DEADLINE_S, consuming, fill, make_topic, producing, read, tps

LONG_S = 300.0
"""Longer than any test: a poll that needs its whole timeout fails by the deadline."""


def key_in(partition: int, count: int) -> bytes:
    """A key of that partition."""
    return next(
        key
        for n in range(1000)
        if partition_for("crc32", key := b"%d" % n, count, lambda: 0.0) == partition
    )


async def several_turns() -> None:
    """Let a task that was just made run until it waits for something outside."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_empty_partition_gives_nothing_after_the_timeout(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    async with consuming(broker, topic, 0) as consumer, asyncio.timeout(DEADLINE_S):
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert not await consumer.poll(tps(topic, 0), max_records=10, timeout_s=0.3)
        assert loop.time() - began > 0.25
        assert not await consumer.poll(tps(topic, 0), max_records=10, timeout_s=0)


async def test_a_waiting_poll_returns_when_a_record_comes(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=2)
    async with (
        producing(broker) as producer,
        consuming(broker, topic, 0, 1) as consumer,
        asyncio.timeout(DEADLINE_S),
    ):
        waiting = asyncio.create_task(
            consumer.poll(tps(topic, 0, 1), max_records=10, timeout_s=LONG_S)
        )
        await consumer.end_offsets(tps(topic, 0, 1))
        await several_turns()  # now it waits
        assert not waiting.done()
        await producer.send(topic, key=key_in(1, 2), value=b"v")
        found = await waiting
    assert {tp: [r.value for r in records] for tp, records in found.items()} == {(topic, 1): [b"v"]}


async def test_partitions_not_asked_for_keep_their_records(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=2)
    async with producing(broker) as producer, consuming(broker, topic, 0, 1) as consumer:
        for partition in (0, 1):
            await fill(producer, topic, [b"%d" % n for n in range(20)], key_in(partition, 2))
        ones = await read(consumer, tps(topic, 1), 20)
        assert {r.partition for r in ones} == {1}
        assert not await consumer.poll(tps(topic, 1), max_records=10, timeout_s=0.1)
        zeros = await read(consumer, tps(topic, 0), 20)
    assert [r.value for r in ones] == [r.value for r in zeros] == [b"%d" % n for n in range(20)]


async def test_a_poll_gives_no_more_than_asked_and_goes_on_after_it(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=2)
    got: dict[int, list[int]] = {0: [], 1: []}
    async with producing(broker) as producer:
        for partition in (0, 1):
            await fill(producer, topic, [b""] * 25, key_in(partition, 2))
    async with consuming(broker, topic, 0, 1) as consumer, asyncio.timeout(DEADLINE_S):
        while sum(map(len, got.values())) < 50:
            found = await consumer.poll(tps(topic, 0, 1), max_records=7, timeout_s=1.0)
            assert sum(map(len, found.values())) <= 7  # of both together
            for tp, records in found.items():
                got[tp.partition] += [r.offset for r in records]
    assert got == {0: list(range(25)), 1: list(range(25))}


async def test_a_full_partition_does_not_starve_another(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=2)
    async with producing(broker) as producer:
        for partition in (0, 1):
            await asyncio.gather(
                *(producer.send(topic, key=key_in(partition, 2), value=b"") for _ in range(200))
            )
    # Only now, so that one fetch has the records of both.
    async with consuming(broker, topic, 0, 1) as consumer:
        seen: set[int] = set()
        polled = 0
        async with asyncio.timeout(DEADLINE_S):
            while seen != {0, 1}:
                found = await consumer.poll(tps(topic, 0, 1), max_records=10, timeout_s=1.0)
                seen |= {tp.partition for tp in found}
                polled += sum(map(len, found.values()))
                assert polled < 200, "one partition was read to its end first"


async def test_nothing_of_a_partition_that_is_not_assigned(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    other = await make_topic(broker, partitions=1)
    async with producing(broker) as producer, consuming(broker, topic, 0) as consumer:
        await producer.send(other, key=b"k", value=b"not mine")
        await producer.send(topic, key=b"k", value=b"mine")
        asked = tps(topic, 0) | tps(other, 0) | tps(topic, 7)
        assert [r.value for r in await read(consumer, asked, 1)] == [b"mine"]
        assert not await consumer.poll(tps(other, 0), max_records=10, timeout_s=0.2)


async def test_wake_ends_a_waiting_poll(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    async with consuming(broker, topic, 0) as consumer, asyncio.timeout(DEADLINE_S):
        for asked in (tps(topic, 0), frozenset[TopicPartition]()):
            waiting = asyncio.create_task(
                consumer.poll(asked, max_records=10, timeout_s=LONG_S if asked else 1.0)
            )
            await several_turns()
            assert asked == frozenset() or not waiting.done()
            consumer.wake()
            assert not await waiting


async def test_wake_before_a_poll_makes_the_next_one_return_and_only_that(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    async with consuming(broker, topic, 0) as consumer, asyncio.timeout(DEADLINE_S):
        consumer.wake()
        consumer.wake()
        assert not await consumer.poll(tps(topic, 0), max_records=10, timeout_s=LONG_S)
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert not await consumer.poll(tps(topic, 0), max_records=10, timeout_s=0.3)
        assert loop.time() - began > 0.25


async def test_polling_nothing_waits_for_wake_or_the_timeout(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    async with consuming(broker, topic, 0) as consumer, asyncio.timeout(DEADLINE_S):
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert not await consumer.poll((), max_records=10, timeout_s=0.3)
        assert loop.time() - began > 0.25  # or a poller with nothing to ask for would spin
        waiting = asyncio.create_task(consumer.poll((), max_records=10, timeout_s=LONG_S))
        await asyncio.sleep(0)
        consumer.wake()
        assert not await waiting


async def test_a_cancelled_poll_loses_nothing(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    async with producing(broker) as producer, consuming(broker, topic, 0) as consumer:
        got: list[int] = []
        for n in range(10):
            polling = asyncio.create_task(
                consumer.poll(tps(topic, 0), max_records=10, timeout_s=LONG_S)
            )
            await asyncio.sleep(0)
            await producer.send(topic, key=b"k", value=b"%d" % n)
            polling.cancel()
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.wait((polling,))
            if not polling.cancelled():
                got += [r.offset for records in polling.result().values() for r in records]
        if len(got) < 10:
            got += [r.offset for r in await read(consumer, tps(topic, 0), 10 - len(got))]
    assert got == list(range(10))


async def test_seek_goes_back_and_forth(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    [tp] = tps(topic, 0)
    async with producing(broker) as producer, consuming(broker, topic, 0) as consumer:
        await fill(producer, topic, [b"%d" % n for n in range(10)])
        assert len(await read(consumer, [tp], 10)) == 10
        consumer.seek(tp, 4)
        assert [r.offset for r in await read(consumer, [tp], 6)] == [4, 5, 6, 7, 8, 9]
        consumer.seek(tp, 8)
        assert [r.offset for r in await read(consumer, [tp], 2)] == [8, 9]
        consumer.seek(tp, 0)
        consumer.seek(tp, 9)  # what the first one fetched, if anything, is dropped
        assert [r.offset for r in await read(consumer, [tp], 1)] == [9]


async def test_the_end_offset_is_that_of_the_next_record(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    [tp] = tps(topic, 0)
    async with producing(broker) as producer, consuming(broker, topic, 0) as consumer:
        assert await consumer.end_offsets([tp]) == {tp: 0}
        await fill(producer, topic, [b"", b""])
        assert await consumer.end_offsets([tp]) == {tp: 2}
        assert await consumer.end_offsets([]) == {}
