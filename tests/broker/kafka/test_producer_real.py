"""Order, cancellation and a wedged producer, on a real Kafka."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import TopicPartition as LowerPartition
from aiokafka.errors import OutOfOrderSequenceNumber

from prosody.broker.kafka import producer as module
from prosody.errors import BrokerError, RecordTooLargeError, SendTimeoutError
from tests.broker.kafka.support import LIMIT_S, PRODUCER, producing, until_gone, values_of
from tests.broker.members import fresh, make_topic

if TYPE_CHECKING:
    from prosody.broker.kafka import KafkaBroker
    from prosody.broker.kafka.producer import KafkaProducer

pytestmark = pytest.mark.real


def numbered(producer: KafkaProducer, topic: str, count: int, size: int = 0) -> list[Any]:
    """Sends of one partition, as tasks that start in their order."""
    return [
        asyncio.create_task(producer.send(topic, key=b"k", value=(b"%06d" % n).ljust(size, b".")))
        for n in range(count)
    ]


def swallow_batch(producer: KafkaProducer, topic: str, partition: int = 0) -> None:
    """Leave the gap in the sequence that a refused batch leaves; the broker itself then objects."""
    producer._producer._txn_manager.increment_sequence_number(LowerPartition(topic, partition), 7)


async def test_order_while_the_metadata_is_missing(kafka: KafkaBroker) -> None:
    async with producing(kafka) as producer, asyncio.timeout(LIMIT_S):
        # After the start, at which a producer learns of every topic there is.
        topic = await make_topic(kafka, partitions=1)
        first = numbered(producer, topic, 100)
        await asyncio.sleep(0)
        assert topic in producer._unplaced
        # More come in every turn, also in the one in which the metadata arrives.
        later = []
        while topic in producer._unplaced:
            number = b"%06d" % (100 + len(later))
            later.append(asyncio.create_task(producer.send(topic, key=b"k", value=number)))
            await asyncio.sleep(0)
        number = b"%06d" % (100 + len(later))
        later.append(asyncio.create_task(producer.send(topic, key=b"k", value=number)))
        sent = await asyncio.gather(*first, *later)
    assert [s.offset for s in sent] == list(range(len(sent)))
    values = await values_of(kafka, topic, 1, len(sent))
    assert values == sorted(values)


async def test_order_while_the_buffer_is_full(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BATCH_BYTES", 4096)
    topic = await make_topic(kafka, partitions=1)
    async with producing(kafka) as producer, asyncio.timeout(LIMIT_S):
        tasks = numbered(producer, topic, 1500, size=200)
        sent = await asyncio.gather(*tasks)
    assert [s.offset for s in sent] == list(range(1500))


async def test_cancelled_sends_harm_no_other(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BATCH_BYTES", 4096)
    topic = await make_topic(kafka, partitions=1)
    async with producing(kafka) as producer, asyncio.timeout(LIMIT_S):
        tasks = numbered(producer, topic, 900, size=200)
        for turn in range(300):
            tasks[turn * 3 + 1].cancel()
            if turn % 10 == 0:
                await asyncio.sleep(0)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        kept = [e for n, e in enumerate(ends) if n % 3 != 1]
        assert not [e for e in kept if isinstance(e, BaseException)]
        offsets = [e.offset for e in kept if not isinstance(e, BaseException)]
        assert offsets == sorted(offsets)
        assert sum(isinstance(e, asyncio.CancelledError) for e in ends) > 200


async def test_a_send_that_waits_for_metadata_times_out(kafka: KafkaBroker) -> None:
    before = asyncio.all_tasks()
    async with producing(kafka) as producer:
        topic = fresh("missing")
        with pytest.raises(SendTimeoutError, match=r"not acknowledged within 0\.2 s.*exist"):
            await producer.send(topic, key=b"k", value=b"v", timeout_s=0.2)
        # Nothing piles up behind a topic that does not come.
        assert not producer._unplaced[topic].waiting
    await until_gone(before)


async def test_neither_key_nor_value(kafka: KafkaBroker) -> None:
    topic = await make_topic(kafka, partitions=1)
    async with producing(kafka) as producer:
        await producer.send(topic, key=None, value=None)
    assert await values_of(kafka, topic, 1, 1) == [b""]


async def test_a_record_that_is_too_large(kafka: KafkaBroker) -> None:
    topic = await make_topic(kafka, partitions=1)
    async with producing(kafka) as producer:
        with pytest.raises(RecordTooLargeError, match="MessageSizeTooLarge") as caught:
            await producer.send(topic, key=b"k", value=bytes(2 << 20))
        assert not caught.value.retriable
        await producer.send(topic, key=b"k", value=b"fine")


async def test_what_the_broker_refuses_wedges_nothing(kafka: KafkaBroker) -> None:
    """A refused batch leaves a gap in the sequence, in which aiokafka's producer would be stuck."""
    topic = fresh("small")
    admin = kafka.admin()
    await admin.create_topic(topic, partitions=1, config={"max.message.bytes": "2000"})
    await admin.stop()
    async with producing(kafka) as producer, asyncio.timeout(LIMIT_S):
        await producer.send(topic, key=b"k", value=b"one")
        with pytest.raises(RecordTooLargeError):
            # Random, or compression would make it fit.
            await producer.send(topic, key=b"k", value=random.Random(1).randbytes(10_000))
        assert (await producer.send(topic, key=b"k", value=b"two")).topic == topic


async def test_a_wedged_producer_is_replaced(kafka: KafkaBroker) -> None:
    topic = await make_topic(kafka, partitions=1)
    before = asyncio.all_tasks()
    async with producing(kafka) as producer, asyncio.timeout(LIMIT_S):
        await producer.send(topic, key=b"k", value=b"first")
        old = producer._producer
        swallow_batch(producer, topic)
        sent = await asyncio.gather(*numbered(producer, topic, 2000))
        assert producer._producer is not old
        assert [s.offset for s in sent] == list(range(1, 2001))
    await until_gone(before)
    assert (await values_of(kafka, topic, 1, 2001))[1:] == [b"%06d" % n for n in range(2000)]


async def test_the_other_partitions_lose_nothing_and_keep_their_order(kafka: KafkaBroker) -> None:
    topic = await make_topic(kafka, partitions=4)
    async with producing(kafka) as producer, asyncio.timeout(LIMIT_S):
        await producer.send(topic, key=b"k", value=b"0")
        for partition in range(2):
            swallow_batch(producer, topic, partition)
        keys = [b"key%d" % n for n in range(40)]
        sends = [(keys[n % 40], b"%06d" % n) for n in range(4000)]
        sent = await asyncio.gather(
            *(producer.send(topic, key=key, value=value) for key, value in sends)
        )
    assert len({(s.partition, s.offset) for s in sent}) == 4000
    for partition in range(4):
        offsets = [s.offset for s in sent if s.partition == partition]
        assert offsets == sorted(offsets)


async def test_what_nobody_awaits_is_not_repeated(kafka: KafkaBroker) -> None:
    topic = await make_topic(kafka, partitions=1)
    async with producing(kafka) as producer, asyncio.timeout(LIMIT_S):
        await producer.send(topic, key=b"k", value=b"first")
        swallow_batch(producer, topic)
        tasks = numbered(producer, topic, 10)
        await asyncio.sleep(0)
        for task in tasks[:5]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert (await values_of(kafka, topic, 1, 6))[1:] == [b"%06d" % n for n in range(5, 10)]


async def test_repeats_have_a_limit(kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = await make_topic(kafka, partitions=1)
    attempts = 0

    async def refuse(_self: Any, _node: int, batches: dict[Any, Any]) -> None:
        nonlocal attempts
        attempts += 1
        for batch in batches.values():
            batch.failure(exception=OutOfOrderSequenceNumber())
        _self._in_flight.remove(_node)
        _self._muted_partitions.clear()

    async with producing(kafka) as producer, asyncio.timeout(LIMIT_S):
        with monkeypatch.context() as patch:
            patch.setattr("aiokafka.producer.sender.Sender._send_produce_req", refuse)
            with pytest.raises(BrokerError, match=r"tried 4 times: OutOfOrderSequenceNumber"):
                await producer.send(topic, key=b"k", value=b"v")
        assert attempts == module.REPEATS + 1
        await producer.send(topic, key=b"k", value=b"v")


@pytest.mark.parametrize("busy", [True, False])
async def test_a_dead_sender_is_replaced(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    """Whether it dies with records in its hands or before it gets them."""
    topic = await make_topic(kafka, partitions=1)
    async with producing(kafka) as producer, asyncio.timeout(LIMIT_S):
        await producer.send(topic, key=b"k", value=b"v")
        accumulator = producer._producer._message_accumulator
        drain = accumulator.drain_by_nodes

        def die(*args: Any, **options: Any) -> Any:
            if busy and not accumulator._batches:
                return drain(*args, **options)
            raise ZeroDivisionError("a fault in aiokafka")

        monkeypatch.setattr(accumulator, "drain_by_nodes", die)
        sent = await asyncio.gather(*numbered(producer, topic, 50))
    assert [s.offset for s in sent] == list(range(1, 51))


async def test_stopping_delivers_what_is_buffered(kafka: KafkaBroker) -> None:
    topic = await make_topic(kafka, partitions=1)
    producer = kafka.producer(PRODUCER)
    await producer.start()
    tasks = numbered(producer, topic, 500)
    await asyncio.sleep(0)
    async with asyncio.timeout(LIMIT_S):
        await producer.stop()
        sent = await asyncio.gather(*tasks)
    assert [s.offset for s in sent] == list(range(500))


async def test_stopping_has_a_deadline(kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_LIMIT_S", 0.05)
    before = asyncio.all_tasks()
    async with producing(kafka) as producer:
        task = asyncio.create_task(producer.send(fresh("missing"), key=b"k", value=b"v"))
        await asyncio.sleep(0)
        async with asyncio.timeout(LIMIT_S):
            await producer.stop()
            with pytest.raises(BrokerError, match="stopped before it was acknowledged"):
                await task
    await until_gone(before)
