"""What is changed in aiokafka for the time when topics and leaders are away."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as LowerPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import UnknownTopicOrPartitionError

from prosody.broker.kafka import KafkaBroker, patience
from prosody.broker.kafka import consumer as consumer_module
from prosody.broker.kafka.assignors import make_assignor
from prosody.broker.kafka.producer import DELIVERY_LIMIT_S
from prosody.broker.protocol import ProducerSettings
from prosody.errors import BrokerError, SendTimeoutError
from tests.broker.members import consumer_settings, fresh, make_topic, producing
from tests.client.support import Place
from tests.mutant import mutant
from tests.outages.support import DEADLINE_S
from tests.support import FakeRuntime, run_virtual

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = ProducerSettings("producer", None, "crc32")
NO_PACE = mutant("broker.kafka.patience", "if wait_s > 0:", "if wait_s > 1e9:")


def asks_without_a_pause(module: Any) -> tuple[int, float]:
    """How often aiokafka's loop, which wants news all the time, asks in 10 seconds; the first wait."""

    async def run() -> tuple[int, float]:
        asked: list[float] = []
        runtime = FakeRuntime()

        async def update(cluster: object, topics: object) -> bool:
            assert (cluster, topics) == ("cluster", "topics")
            asked.append(runtime.monotonic())
            await asyncio.sleep(0.001)
            return True

        client = SimpleNamespace(_metadata_update=update)
        module.pace_metadata(client, runtime)
        while runtime.monotonic() < 10:
            assert await client._metadata_update("cluster", "topics")
        return len(asked), asked[0]

    return run_virtual(run())


def test_metadata_is_asked_for_at_a_pace() -> None:
    asked, first = asks_without_a_pause(patience)
    assert asked == pytest.approx(10 / patience.METADATA_PAUSE_S, abs=1)
    assert first == 0.0, "one question alone does not wait"


def test_without_the_pace_it_is_a_flood() -> None:
    asked, _ = asks_without_a_pause(NO_PACE)
    assert asked > 1_000


@contextlib.contextmanager
def unused(client: Any) -> Iterator[Any]:
    """A producer or consumer of aiokafka that is never started."""
    try:
        yield client
    finally:
        client._closed = True  # or its finaliser complains


async def test_aiokafka_has_what_is_changed() -> None:
    with unused(AIOKafkaProducer()) as producer, unused(AIOKafkaConsumer()) as consumer:
        for client in (producer.client, consumer._client):
            assert asyncio.iscoroutinefunction(client._metadata_update)
        assert producer._message_accumulator._batch_ttl == pytest.approx(40.0)
        assert producer._sender.client is producer.client


async def test_a_batch_is_not_given_up_for_lack_of_a_leader() -> None:
    async def queued(producer: Any) -> asyncio.Future[Any]:
        accumulator = producer._message_accumulator
        result: asyncio.Future[Any] = await accumulator.add_message(
            LowerPartition("t", 0), b"k", b"v", timeout=1.0
        )
        _, without_leader = accumulator.drain_by_nodes(ignore_nodes=())
        assert without_leader
        return result

    with unused(AIOKafkaProducer()) as impatient, unused(AIOKafkaProducer()) as patient:
        patience.keep_batches(impatient, -1.0)
        assert (await queued(impatient)).exception(), "aiokafka has changed: is this needed?"
        patience.keep_batches(patient, DELIVERY_LIMIT_S)
        assert not (await queued(patient)).done()


async def _sender_of_a_healthy_topic(sends: int) -> tuple[int, int]:
    """While a metadata update hangs: the turns of aiokafka's loop, and what hangs on to the update."""
    turns = 0
    with unused(AIOKafkaProducer(enable_idempotence=True, acks="all")) as producer:
        patience.serve_the_others(producer)
        producer._txn_manager.set_pid_and_epoch(1, 0)
        client, sender, accumulator = (
            producer.client,
            producer._sender,
            producer._message_accumulator,
        )
        update = client._md_update_fut = asyncio.get_running_loop().create_future()
        client.cluster.leader_for_partition = lambda tp: -1 if tp.topic == "dead" else 1
        drain = accumulator.drain_by_nodes

        def counted(**options: Any) -> Any:
            nonlocal turns
            turns += 1
            return drain(**options)

        async def acknowledge(node: int, batches: Any) -> None:
            await asyncio.sleep(0)
            for batch in batches.values():
                batch.done(0, 1, 0)
            sender._in_flight.remove(node)
            sender._muted_partitions -= batches.keys()

        accumulator.drain_by_nodes, sender._send_produce_req = counted, acknowledge
        await sender.start()
        await accumulator.add_message(LowerPartition("dead", 0), b"k", b"v", 1.0)
        for _ in range(sends):
            await (await accumulator.add_message(LowerPartition("live", 0), b"k", b"v", 1.0))
        hanging = len(update._callbacks or ())
        records = len(accumulator.waiter()._callbacks or ())
        assert update.done() is False
        sender.sender_task.cancel()
        await asyncio.wait([sender.sender_task])
    return turns, hanging + records


async def test_a_loop_that_turns_while_an_update_hangs_piles_nothing_up() -> None:
    turns, hanging = await _sender_of_a_healthy_topic(200)
    assert turns >= 200
    assert hanging <= 4


async def test_a_loop_that_waits_for_an_update_wakes_at_its_end_and_at_new_records() -> None:
    loop = asyncio.get_running_loop()
    updates: list[asyncio.Future[None]] = []

    def update() -> asyncio.Future[None]:
        updates.append(loop.create_future())
        return updates[-1]

    records = loop.create_future()
    producer = SimpleNamespace(
        client=SimpleNamespace(force_metadata_update=update),
        _message_accumulator=SimpleNamespace(waiter=lambda: records),
        _sender=SimpleNamespace(client=None),
    )
    patience.serve_the_others(producer)
    client: Any = producer._sender.client
    first = client.force_metadata_update()
    assert client.force_metadata_update() is first
    updates[0].set_result(None)
    await asyncio.wait_for(first, 1.0)
    second = client.force_metadata_update()
    assert len(updates) == 2
    records.set_result(None)
    await asyncio.wait_for(second, 1.0)
    third = client.force_metadata_update()  # those records are not taken yet
    await asyncio.wait_for(third, 1.0)
    assert len(updates) == 2


def _consumer_without_a_leader() -> int:
    """How often a consumer of ours asks for metadata in 10 s while a partition has no leader."""

    async def run() -> int:
        runtime = FakeRuntime()
        asked = 0

        async def update(*_: object) -> bool:
            nonlocal asked
            asked += 1
            await asyncio.sleep(0.001)
            return True

        settings = consumer_settings("g")
        made: Any = KafkaBroker(("nowhere:9",), runtime=runtime).consumer(settings)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AIOKafkaClient, "_metadata_update", lambda self, *args: update(*args))
            consumer = made._make(make_assignor("range"))
            with unused(consumer):
                client = consumer._client
                client._sync_task = asyncio.create_task(client._md_synchronizer())
                client.cluster.leader_for_partition = lambda tp: -1
                consumer._subscription.subscribe({"t"})
                consumer._subscription.assign_from_subscribed([LowerPartition("t", 0)])
                fetcher = Fetcher(client, consumer._subscription, auto_offset_reset="none")
                await asyncio.sleep(10.0)
                await fetcher.close()
                await client.close()
        return asked

    return run_virtual(run())


def test_a_consumer_without_a_leader_asks_at_a_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 10 < _consumer_without_a_leader() <= 10 / patience.METADATA_PAUSE_S + 1
    monkeypatch.setattr(consumer_module, "pace_metadata", lambda client, runtime: None)
    assert _consumer_without_a_leader() > 1_000


class Nobody:
    """aiokafka's producer while no broker answers, then one that does not know the topic."""

    def __init__(self, answers: list[bool]) -> None:
        self.answers = answers
        self.client = SimpleNamespace(
            cluster=SimpleNamespace(partitions_for_topic=lambda topic: None),
            force_metadata_update=self._update,
        )

    async def partitions_for(self, topic: str) -> set[int]:
        await asyncio.sleep(40.0)
        raise UnknownTopicOrPartitionError

    async def _update(self) -> bool:
        return self.answers.pop(0)


@pytest.mark.parametrize(("silent", "after_s"), [(0, 40.0), (2, 120.0)])
def test_a_missing_topic_is_told_apart_from_a_missing_broker(silent: int, after_s: float) -> None:
    async def run() -> None:
        runtime = FakeRuntime()
        producer = KafkaBroker(("nowhere:9092",), runtime=runtime).producer(SETTINGS)
        producer._producer = Nobody([*(False for _ in range(silent)), True])
        with pytest.raises(BrokerError, match="UnknownTopicOrPartitionError"):
            await producer.send("t", key=b"k", value=b"v")
        assert runtime.monotonic() == after_s
        producer._producer = None
        await producer.stop()

    run_virtual(run())


@pytest.mark.real
async def test_a_send_to_a_deleted_topic_floods_nobody(
    kafka_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the topic to come back, and for no more than its own timeout."""
    broker = kafka_place.broker
    topic, other = await make_topic(broker, partitions=1), await make_topic(broker, partitions=1)
    asked = 0
    admin = broker.admin()
    async with producing(broker) as producer, asyncio.timeout(DEADLINE_S):
        await producer.send(topic, key=b"k", value=b"before")
        await producer.send(other, key=b"k", value=b"before")
        client = producer._producer.client  # type: ignore[attr-defined]
        await admin.delete_topic(topic)
        update = client.cluster.update_metadata

        def count(*args: Any) -> None:
            nonlocal asked
            asked += 1
            update(*args)

        monkeypatch.setattr(client.cluster, "update_metadata", count)
        with pytest.raises(SendTimeoutError, match="may still be delivered"):
            await producer.send(topic, key=b"k", value=b"during", timeout_s=2.0)
        assert 0 < asked <= 2.0 / patience.METADATA_PAUSE_S + 5
        # Other topics notice nothing: their sends do not wait for that metadata.
        asked = 0
        for offset in range(1, 101):
            assert (await producer.send(other, key=b"k", value=b"after")).offset == offset
        assert asked < 50
        await make_topic(broker, partitions=1, name=topic)
        sent = await producer.send(topic, key=b"k", value=b"after")
        assert sent.offset == 1, "the one that was given up came first, as it was called first"
    await admin.stop()


@pytest.mark.real
async def test_a_send_to_a_topic_that_was_never_there(kafka_place: Place) -> None:
    async with producing(kafka_place.broker) as producer, asyncio.timeout(DEADLINE_S):
        with pytest.raises(SendTimeoutError, match="does it exist"):
            await producer.send(fresh("missing"), key=b"k", value=b"v", timeout_s=1.0)
