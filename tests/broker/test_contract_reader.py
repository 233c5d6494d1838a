"""Single records read again by offset: there, gone, not to be had, and who else notices."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from prosody.broker.protocol import Broker, ReaderSettings, TopicPartition
from prosody.errors import BrokerError
from tests.broker.levers import COMPACTED, Levers
from tests.broker.members import (
    DEADLINE_S,
    fill,
    fresh,
    make_topic,
    producing,
    reading,
)

if TYPE_CHECKING:
    from prosody.broker.protocol import BrokerReader, Record

PROMPT_S = 5.0
"""For an answer, on a busy machine; far below the reader's timeout."""


async def look(reader: BrokerReader, tp: TopicPartition, offset: int) -> Record | None:
    async with asyncio.timeout(PROMPT_S):
        return await reader.read(tp, offset)


async def values(reader: BrokerReader, tp: TopicPartition, *offsets: int) -> list[bytes | None]:
    """The value at each offset, asked for one after the other; None where nothing is."""
    found = [await look(reader, tp, offset) for offset in offsets]
    for record, offset in zip(found, offsets, strict=True):
        assert record is None or (record.topic, record.partition, record.offset) == (*tp, offset)
    return [record.value if record else None for record in found]


def numbers(*offsets: int) -> list[bytes | None]:
    return [b"%d" % offset for offset in offsets]


async def numbered(broker: Broker, count: int) -> TopicPartition:
    """A partition with a record at each of so many offsets, whose value is that number."""
    topic = await make_topic(broker, partitions=1)
    async with producing(broker) as producer:
        await asyncio.gather(
            *(producer.send(topic, key=b"k", value=b"%d" % n) for n in range(count))
        )
    return TopicPartition(topic, 0)


async def test_a_record_comes_back_as_it_was_sent(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    headers = [("a", b"1"), ("b", None), ("a", b"2"), ("empty", b"")]
    async with producing(broker) as producer, reading(broker) as reader:
        await producer.send(topic, key=b"other", value=b"")
        await producer.send(
            topic, key=b"k\x00", value=b"\xff", headers=headers, timestamp_ms=1_700_000_000_123
        )
        await producer.send(topic, key=None, value=None)
        record = await look(reader, TopicPartition(topic, 0), 1)
        assert record is not None
        assert (record.topic, record.partition, record.offset) == (topic, 0, 1)
        assert (record.key, record.value) == (b"k\x00", b"\xff")
        assert [tuple(header) for header in record.headers] == headers
        assert record.timestamp == 1_700_000_000_123
        last = await look(reader, TopicPartition(topic, 0), 2)
        assert last is not None
        assert (last.key, last.value, list(last.headers)) == (None, None, [])


@pytest.mark.parametrize("discard_threshold", [0, 10, 10_000])
async def test_far_ahead_behind_and_again(broker: Broker, discard_threshold: int) -> None:
    tp = await numbered(broker, 1000)
    async with reading(broker, discard_threshold=discard_threshold) as reader:
        wanted = (0, 1, 5, 999, 500, 0, 998, 400, 401, 401)
        assert await values(reader, tp, *wanted) == numbers(*wanted)
        at_once = await asyncio.gather(*(look(reader, tp, offset) for offset in wanted))
        assert [record and record.value for record in at_once] == numbers(*wanted)


async def test_many_at_once_of_several_partitions(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=4)
    async with producing(broker) as producer:
        sent = await asyncio.gather(
            *(producer.send(topic, key=b"%d" % (n % 40), value=b"%d" % n) for n in range(400))
        )
    places = [(TopicPartition(topic, place.partition), place.offset) for place in sent]
    assert len({tp for tp, _ in places}) == 4
    async with reading(broker) as reader, asyncio.timeout(DEADLINE_S):
        # Backwards, and each twice.
        found = await asyncio.gather(*(reader.read(*place) for place in places[::-1] + places))
        assert [record and record.value for record in found[400:]] == numbers(*range(400))
        assert [record and record.value for record in found[:400]] == numbers(*range(399, -1, -1))


async def test_what_retention_has_removed_is_gone(broker: Broker, levers: Levers) -> None:
    tp = await numbered(broker, 20)
    async with reading(broker) as reader:
        assert await values(reader, tp, 11) == numbers(11)
        await levers.truncate(*tp, 12)
        assert await values(reader, tp, -1, 0, 11) == [None] * 3
        assert await values(reader, tp, 12, 19) == numbers(12, 19)
        await levers.truncate(*tp, 20)
        assert await values(reader, tp, 12, 19, 20) == [None] * 3


@pytest.mark.timeout(180)
async def test_what_compaction_has_removed_is_gone(broker: Broker, levers: Levers) -> None:
    topic = await make_topic(broker, partitions=1, config=COMPACTED)
    async with producing(broker) as producer:
        for key in (b"a", b"b", b"a", b"b", b"a", b"c", b"last"):
            await producer.send(topic, key=key, value=key)
            await asyncio.sleep(0.005)  # a segment of its own
    await levers.compact(topic, 0)
    async with reading(broker) as reader:
        tp = TopicPartition(topic, 0)
        expected = [None, None, None, b"b", b"a", b"c", b"last", None]
        assert await values(reader, tp, *range(8)) == expected
        at_once = await asyncio.gather(*(look(reader, tp, offset) for offset in range(8)))
        assert [record and record.value for record in at_once] == expected


async def test_aborted_records_and_markers_are_gone(broker: Broker, levers: Levers) -> None:
    """Also at the end of the log, where no record follows."""
    tp = await numbered(broker, 2)
    await levers.abort(tp.topic, 2)
    async with reading(broker) as reader, producing(broker) as producer:
        assert await values(reader, tp, 4, 3, 2, 1, 5) == [None, None, None, b"1", None]
        await fill(producer, tp.topic, [b"5"])
        assert await values(reader, tp, *range(6)) == [b"0", b"1", None, None, None, b"5"]


async def test_nothing_is_beyond_the_end_until_it_is_written(broker: Broker) -> None:
    tp = await numbered(broker, 3)
    async with reading(broker) as reader, producing(broker) as producer:
        assert await values(reader, tp, 3, 4, 1_000_000, 2**62) == [None] * 4
        await fill(producer, tp.topic, [b"3"])
        assert await values(reader, tp, 3, 4) == [b"3", None]


async def test_an_empty_partition_has_nothing(broker: Broker) -> None:
    tp = await numbered(broker, 0)
    async with reading(broker) as reader:
        assert await values(reader, tp, 0, 1) == [None, None]


async def test_a_topic_made_anew_has_other_records_or_none(broker: Broker) -> None:
    tp = await numbered(broker, 10)
    admin = broker.admin()
    async with reading(broker) as reader, producing(broker) as producer:
        assert await values(reader, tp, 1, 9) == numbers(1, 9)
        await admin.delete_topic(tp.topic)
        await admin.create_topic(tp.topic, partitions=1, replication_factor=1)
        await admin.stop()
        await fill(producer, tp.topic, [b"new"] * 3)
        assert await values(reader, tp, 9, 1, 3) == [None, b"new", None]


async def test_a_topic_that_is_not_there_fails_its_own_reads_only(broker: Broker) -> None:
    tp = await numbered(broker, 5)
    nowhere = fresh("missing")
    async with reading(broker) as reader:
        lost = [
            asyncio.create_task(look(reader, missing, offset))
            for missing in (TopicPartition(nowhere, 0), TopicPartition(tp.topic, 1))
            for offset in (0, 7)
        ]
        for _ in range(10):
            assert await values(reader, tp, 4, 0) == numbers(4, 0)
        for task in lost:
            with pytest.raises(BrokerError, match=r"(missing-\w+|topic-\w+).[01] ") as caught:
                await task
            assert caught.value.retriable
        assert await values(reader, tp, 1) == numbers(1)
        # It may come into being.
        await make_topic(broker, partitions=1, name=nowhere)
        assert await values(reader, TopicPartition(nowhere, 0), 0) == [None]


async def test_a_record_larger_than_a_fetch_comes_whole(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    large = bytes(range(256)) * 3_000
    async with producing(broker) as producer, reading(broker, fetch_bytes=1024) as reader:
        await fill(producer, topic, [b"before", large, b"after", large, b"last"])
        expected = [b"before", large, b"after", large, b"last"]
        tp = TopicPartition(topic, 0)
        assert await values(reader, tp, *range(5)) == expected
        at_once = await asyncio.gather(*(look(reader, tp, offset) for offset in range(5)))
        assert [record and record.value for record in at_once] == expected


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 50])
async def test_a_cancelled_read_harms_no_other(broker: Broker, turns: int) -> None:
    tp = await numbered(broker, 5)
    async with reading(broker) as reader:
        offsets = (3, 3, 3, 4, 1)
        tasks = [asyncio.create_task(look(reader, tp, offset)) for offset in offsets]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in (tasks[0], tasks[3]):
            task.cancel()
        found = await asyncio.gather(tasks[1], tasks[2], tasks[4])
        assert [record and record.value for record in found] == numbers(3, 3, 1)
        assert await values(reader, tp, 4, 3) == numbers(4, 3)
        await asyncio.wait(tasks)


async def test_a_stopped_reader_reads_nothing(broker: Broker) -> None:
    tp = await numbered(broker, 5)
    async with reading(broker) as reader:
        assert await values(reader, tp, 3) == numbers(3)
        await reader.stop()
        with pytest.raises(BrokerError, match="stopped") as caught:
            await reader.read(tp, 3)
        assert not caught.value.retriable
        await reader.stop()


async def test_a_stop_ends_the_reads_under_way(broker: Broker) -> None:
    """At whatever point: while it connects, asks who leads, fetches."""
    tp = await numbered(broker, 5)
    settings = ReaderSettings("reader", 30.0, 100)
    for turns in (0, 1, 2, 5, 10, 20, 40):
        reader = broker.reader(settings)
        reads = [asyncio.create_task(reader.read(tp, offset)) for offset in (1, 2, 2)]
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(PROMPT_S):
            await reader.stop()
            for result in await asyncio.gather(*reads, return_exceptions=True):
                assert result is None or isinstance(result, BrokerError) or result.offset in (1, 2)  # type: ignore[union-attr]


async def test_a_reader_that_never_reads_can_be_stopped(broker: Broker) -> None:
    before = asyncio.all_tasks()
    async with reading(broker):
        assert asyncio.all_tasks() == before
    assert asyncio.all_tasks() == before
