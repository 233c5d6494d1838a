"""What is sent is what is polled: bytes, headers, time, order and place."""

from __future__ import annotations

import asyncio

import pytest

from prosody.broker.partitioners import partition_for
from prosody.broker.protocol import Broker
from prosody.errors import BrokerError, RecordTooLargeError
from tests.broker.members import DEADLINE_S, consuming, fill, make_topic, producing, read, tps


async def test_a_record_comes_back_as_it_was_sent(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    headers = [("a", b"1"), ("b", None), ("a", b"2"), ("empty", b"")]
    async with producing(broker) as producer, consuming(broker, topic, 0) as consumer:
        sent = await producer.send(
            topic, key=b"k\x00", value=b"\xff", headers=headers, timestamp_ms=1_700_000_000_123
        )
        assert sent == (topic, 0, 0)
        [record] = await read(consumer, tps(topic, 0), 1)
    assert (record.topic, record.partition, record.offset) == (topic, 0, 0)
    assert (record.key, record.value) == (b"k\x00", b"\xff")
    assert [tuple(header) for header in record.headers] == headers
    assert record.timestamp == 1_700_000_000_123


@pytest.mark.parametrize("key", [None, b"", b"k"])
@pytest.mark.parametrize("value", [None, b"", b"v"])
async def test_none_and_empty_are_different(
    broker: Broker, key: bytes | None, value: bytes | None
) -> None:
    topic = await make_topic(broker, partitions=1)
    async with producing(broker) as producer, consuming(broker, topic, 0) as consumer:
        await producer.send(topic, key=key, value=value)
        [record] = await read(consumer, tps(topic, 0), 1)
    assert (record.key, record.value) == (key, value)
    assert list(record.headers) == []


async def test_without_a_timestamp_a_record_has_the_present(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    async with producing(broker) as producer, consuming(broker, topic, 0) as consumer:
        await producer.send(topic, key=b"a", value=b"", timestamp_ms=1_000)
        await producer.send(topic, key=b"a", value=b"")
        old, new = await read(consumer, tps(topic, 0), 2)
    assert old.timestamp == 1_000
    assert new.timestamp > 1_700_000_000_000


async def test_records_of_a_partition_come_in_order_and_without_gaps(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    values = [b"%d" % n for n in range(250)]
    async with producing(broker) as producer, consuming(broker, topic, 0) as consumer:
        await asyncio.gather(*(producer.send(topic, key=b"k", value=v) for v in values))
        records = await read(consumer, tps(topic, 0), 250)
    assert [r.value for r in records] == values
    assert [r.offset for r in records] == list(range(250))


async def test_many_concurrent_senders_keep_the_order_of_each_key(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=4)
    async with producing(broker) as producer, consuming(broker, topic, 0, 1, 2, 3) as consumer:

        async def send_all(key: bytes) -> None:
            await asyncio.gather(
                *(producer.send(topic, key=key, value=b"%d" % n) for n in range(20))
            )

        keys = [b"key-%d" % n for n in range(15)]
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*(send_all(key) for key in keys))
        records = await read(consumer, tps(topic, 0, 1, 2, 3), 300)
    for key in keys:
        assert [r.value for r in records if r.key == key] == [b"%d" % n for n in range(20)]


@pytest.mark.parametrize("partitioner", ["crc32", "murmur2"])
async def test_a_key_lives_where_its_partitioner_says(broker: Broker, partitioner: str) -> None:
    topic = await make_topic(broker, partitions=5)
    async with producing(broker, partitioner=partitioner) as producer:
        for key in (b"", b"a", b"order-17", b"\xe2\x82\xac", b"x" * 100):
            sent = await producer.send(topic, key=key, value=b"")
            assert sent.partition == partition_for(partitioner, key, 5, lambda: 0.0)


async def test_records_without_a_key_go_to_several_partitions(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=2)
    async with producing(broker) as producer:
        sent = [await producer.send(topic, key=None, value=b"%d" % n) for n in range(64)]
    assert {s.partition for s in sent} == {0, 1}  # by chance in one only: once in 2 to the 63


async def test_offsets_count_each_partition(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=3)
    async with producing(broker) as producer, consuming(broker, topic, 0, 1, 2) as consumer:
        await fill(producer, topic, [b"1", b"2"], key=b"a")
        await fill(producer, topic, [b"3"], key=b"b")
        ends = await consumer.end_offsets(tps(topic, 0, 1, 2))
    expected = dict.fromkeys(tps(topic, 0, 1, 2), 0)
    for key, count in ((b"a", 2), (b"b", 1)):
        [tp] = tps(topic, partition_for("crc32", key, 3, lambda: 0.0))
        expected[tp] += count
    assert ends == expected


async def test_a_cancelled_send_ends_at_once_and_harms_no_other(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    async with producing(broker) as producer, consuming(broker, topic, 0) as consumer:
        await producer.send(topic, key=b"k", value=b"first")
        sends = [
            asyncio.create_task(producer.send(topic, key=b"k", value=b"%d" % n)) for n in range(30)
        ]
        await asyncio.sleep(0)  # each has begun
        for send in sends[::3]:
            send.cancel()
        async with asyncio.timeout(DEADLINE_S):
            results = await asyncio.gather(*sends, return_exceptions=True)
        kept = [n for n in range(30) if n % 3]
        offsets = [results[n].offset for n in kept]  # type: ignore[union-attr]  # none of these failed
        assert offsets == sorted(set(offsets))
        end = (await consumer.end_offsets(tps(topic, 0)))[next(iter(tps(topic, 0)))]
        records = await read(consumer, tps(topic, 0), end)
    order = [int(r.value or b"") for r in records[1:]]
    assert order == sorted(set(order))  # a cancelled one may be delivered, once, in its place
    assert set(kept) <= set(order)


async def test_a_record_that_is_too_large_is_refused_as_such(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    async with producing(broker) as producer:
        with pytest.raises(RecordTooLargeError) as caught:
            await producer.send(topic, key=b"k", value=bytes(2 << 20), timeout_s=DEADLINE_S)
        assert not caught.value.retriable
        await producer.send(topic, key=b"k", value=b"fine")


async def test_a_stopped_producer_refuses_and_stops_again(broker: Broker) -> None:
    topic = await make_topic(broker, partitions=1)
    async with producing(broker) as producer:
        await producer.send(topic, key=b"k", value=b"")
        await producer.stop()
        await producer.stop()
        with pytest.raises(BrokerError):
            await producer.send(topic, key=b"k", value=b"", timeout_s=5.0)
