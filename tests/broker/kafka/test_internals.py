"""What we use of aiokafka's private parts is still there; a rename turns these red, not production."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, errors
from aiokafka import TopicPartition as LowerPartition
from aiokafka.client import ConnectionGroup
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.fetcher import Fetcher, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.protocol.metadata import MetadataResponse_v0
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from prosody.broker.kafka import internals, lifetimes
from prosody.broker.kafka.buffers import Buffers
from prosody.broker.protocol import TopicPartition
from tests.core.halves import HALVES, core_function

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def unconnected() -> Any:
    """A consumer as after start(), but without any broker."""
    consumer = AIOKafkaConsumer(group_id="g")
    consumer._fetcher = Fetcher(consumer._client, consumer._subscription)
    consumer._coordinator = GroupCoordinator(consumer._client, consumer._subscription, group_id="g")
    return consumer


@pytest.fixture
async def consumer() -> AsyncIterator[Any]:
    consumer = unconnected()
    yield consumer
    await lifetimes.abandon_consumer(consumer, 1.0)


async def test_membership(consumer: Any) -> None:
    fresh = internals.membership(consumer)
    consumer._coordinator.generation, consumer._coordinator.member_id = 3, "me"
    assert internals.membership(consumer) == (3, "me")
    consumer._coordinator.reset_generation()
    assert internals.membership(consumer) == fresh


async def test_whether_a_join_is_under_way(consumer: Any) -> None:
    assert internals.is_reassigning(consumer)
    consumer._subscription.assign_from_user([TopicPartition("t", 0)])
    assert not internals.is_reassigning(consumer)


@pytest.mark.parametrize("assigned", [True, False])
async def test_a_waiter_waits_for_records(consumer: Any, assigned: bool) -> None:
    """During a join too: what stays is fetched all the time."""
    if assigned:
        consumer._subscription.assign_from_user([TopicPartition("t", 0)])
    future = internals.waiter(consumer)
    assert future in consumer._fetcher._fetch_waiters
    future.set_result(None)
    await asyncio.sleep(0)
    assert future not in consumer._fetcher._fetch_waiters


async def test_waiting_counts_as_polling_also_when_cancelled(consumer: Any) -> None:
    subscription = consumer._subscription
    before = subscription._last_fetch_ended = -1000.0
    waiting = asyncio.create_task(
        internals.wait_as_poller(consumer, asyncio.get_running_loop().create_future())
    )
    await asyncio.sleep(0)
    assert subscription.fetcher_idle_time == 0
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert subscription._fetch_count == 0
    assert subscription._last_fetch_ended > before


async def test_waiting_leaves_nothing_behind(consumer: Any) -> None:
    await asyncio.sleep(0)  # aiokafka's fetcher waits too
    before = list(consumer._subscription._assignment_waiters), set(consumer._fetcher._fetch_waiters)
    for _ in range(10):
        future = internals.waiter(consumer)
        asyncio.get_running_loop().call_soon(future.set_result, None)
        await internals.wait_as_poller(consumer, future)
    await asyncio.sleep(0)
    assert consumer._subscription._assignment_waiters == before[0]
    assert consumer._fetcher._fetch_waiters == before[1]


async def test_a_coordinators_error_ends_the_wait(consumer: Any) -> None:
    future = internals.waiter(consumer)
    consumer._subscription.abort_waiters(ValueError("told"))
    with pytest.raises(ValueError, match="told"):
        await internals.wait_as_poller(consumer, future)


async def test_the_coordinators_errors_can_be_asked_for(consumer: Any) -> None:
    consumer._coordinator._pending_exception = ValueError("told")
    with pytest.raises(ValueError, match="told"):
        internals.raise_coordination_error(consumer)


async def test_names_used_only_on_a_real_cluster(consumer: Any) -> None:
    for name in (
        "ensure_coordinator_known",
        "_do_commit_offsets",
        "fetch_committed_offsets",
        "_maybe_leave_group",
    ):
        assert callable(getattr(consumer._coordinator, name))
    assert hasattr(consumer._fetcher, "_max_partition_fetch_bytes")
    assert callable(consumer._client.fetch_all_metadata)


async def test_others_first(consumer: Any) -> None:
    one, two = TopicPartition("t", 0), TopicPartition("t", 1)
    consumer._fetcher._records.update({one: object(), two: object()})
    internals.let_others_first(consumer, one)
    assert list(consumer._fetcher._records) == [two, one]
    consumer._fetcher._records.clear()
    internals.let_others_first(consumer, one)


async def test_an_abandoned_consumer_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    consumer = unconnected()
    assert asyncio.all_tasks() - before
    await lifetimes.abandon_consumer(consumer, 1.0)
    assert asyncio.all_tasks() == before


async def between_two_fetches() -> Any:
    """A consumer with a fetch that has failed and waits to be sent again."""
    consumer = unconnected()
    fetcher = consumer._fetcher

    async def gone(*_: object) -> None:
        raise errors.KafkaConnectionError("the broker has just gone")

    consumer._client.send = gone
    await asyncio.sleep(0)  # its routine begins with cancelling the fetches of before
    request = SimpleNamespace(topics=())
    fetch = asyncio.create_task(fetcher._proc_fetch_request(None, 0, request))
    fetcher._pending_tasks.add(fetch)
    await asyncio.sleep(0)
    assert not fetch.done()
    return consumer


async def test_a_stop_between_two_fetches_is_not_taken_for_cancelled() -> None:
    before = asyncio.all_tasks()
    await lifetimes.stop_consumer(await between_two_fetches(), 1.0, 1.0)
    assert asyncio.all_tasks() == before


async def test_a_cancelled_stop_says_so_and_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    consumer = await between_two_fetches()
    stopping = asyncio.create_task(lifetimes.stop_consumer(consumer, 1.0, 1.0))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert asyncio.all_tasks() == before


async def test_a_producer_has_what_is_used() -> None:
    producer = AIOKafkaProducer()
    lifetimes.track_requests(producer)
    assert not lifetimes.sender_is_dead(producer)
    task = producer._sender._sender_task = asyncio.create_task(asyncio.sleep(60))
    assert not lifetimes.sender_is_dead(producer)
    lifetimes.freeze_producer(producer)
    lifetimes.freeze_producer(producer)
    assert task.cancelling() == 1
    await lifetimes.abandon_producer(producer, 1.0)
    assert lifetimes.sender_is_dead(producer)
    assert producer.client.cluster.partitions_for_topic("t") is None


async def test_positions_are_read_and_set(consumer: Any) -> None:
    tp = LowerPartition("t", 0)
    assert internals.position(None, tp) is None
    consumer._subscription.assign_from_user([tp])
    state = internals.assignment_state(consumer)
    assert internals.assigned(consumer) == {tp}
    assert internals.position(state, tp) is None
    internals.place(consumer, tp, 3)
    assert internals.position(state, tp) == 3
    assert internals.position(state, LowerPartition("t", 1)) is None
    internals.pause(consumer, tp)
    assert consumer.paused() == {tp}
    internals.pause(consumer, LowerPartition("t", 1))  # not assigned: nothing to do


async def test_a_position_that_is_there_already_keeps_what_is_buffered(consumer: Any) -> None:
    tp = LowerPartition("t", 0)
    consumer._subscription.assign_from_user([tp])
    internals.place(consumer, tp, 3)
    buffered = consumer._fetcher._records[tp] = object()
    internals.place(consumer, tp, 3)
    assert consumer._fetcher._records[tp] is buffered
    internals.place(consumer, tp, 4)
    assert tp not in consumer._fetcher._records


async def test_an_error_that_is_buffered_is_dropped(consumer: Any) -> None:
    tp = LowerPartition("t", 0)
    consumer._subscription.assign_from_user([tp])
    internals.place(consumer, tp, 3)
    consumer._fetcher._set_error(tp, errors.OffsetOutOfRangeError({tp: 3}))
    internals.place(consumer, tp, 3)
    assert tp not in consumer._fetcher._records


def test_refused_positions() -> None:
    tp = TopicPartition("t", 0)
    assert internals.refused_positions(errors.OffsetOutOfRangeError({tp: 3})) == {tp: 3}
    assert internals.refused_positions(errors.NoOffsetForPartitionError(tp)) == {tp: None}


async def test_rejoin(consumer: Any) -> None:
    assert not consumer._coordinator._rejoin_needed_fut.done()
    internals.request_rejoin(consumer)
    assert consumer._coordinator._rejoin_needed_fut.done()


async def test_what_keeps_a_consumer_from_its_cluster(consumer: Any) -> None:
    assert "no broker" in (internals.problem(consumer, "g", 100.0) or "")
    connection = SimpleNamespace(connected=lambda: True, _requests=[], _last_action=100.0)
    consumer._client._conns = {(1, ConnectionGroup.DEFAULT): connection}
    assert "coordinator of group 'g'" in (internals.problem(consumer, "g", 100.0) or "")
    consumer._coordinator.coordinator_id = 1
    assert internals.problem(consumer, "g", 200.0) is None  # nothing was asked
    connection._requests = [object()]
    assert internals.problem(consumer, "g", 104.0) is None
    assert "broker 1 has not answered for 6 s" in (internals.problem(consumer, "g", 106.0) or "")
    consumer._client._conns = {(1, ConnectionGroup.COORDINATION): connection}
    assert internals.problem(consumer, "g", 200.0) is None  # a join takes its time
    connection.connected = lambda: False
    assert "no broker" in (internals.problem(consumer, "g", 106.0) or "")
    consumer._client._conns = {}


async def test_connections_have_what_is_looked_at() -> None:
    connection = AIOKafkaConnection("localhost", 1)
    assert not connection.connected()
    assert not connection._requests
    assert connection._last_action > 0


async def test_an_abandoned_producer_leaves_no_request_to_any_silent_broker() -> None:
    before = asyncio.all_tasks()
    producer = AIOKafkaProducer(enable_idempotence=True, acks="all")
    lifetimes.track_requests(producer)
    producer._txn_manager.set_pid_and_epoch(1, 0)
    client = producer.client
    client.cluster.leader_for_partition = lambda tp: tp.partition
    open_requests: list[asyncio.Future[Any]] = []

    async def send(*_: object, **__: object) -> Any:
        open_requests.append(asyncio.get_running_loop().create_future())
        return await open_requests[-1]

    async def close() -> None:
        for request in open_requests:
            if not request.done():
                request.set_exception(errors.KafkaConnectionError("closed"))

    client.send, client.close = send, close
    client.force_metadata_update = asyncio.get_running_loop().create_future
    await producer._sender.start()
    for partition in range(3):
        await producer._message_accumulator.add_message(
            LowerPartition("t", partition), b"k", b"v", 1.0
        )
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(open_requests) == 3
    await lifetimes.abandon_producer(producer, 0.01)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert not producer._sender.prosody_requests


async def test_news_of_the_topics(consumer: Any) -> None:
    news: list[object] = []
    cluster = consumer._client.cluster
    internals.on_metadata(consumer, news.append)
    assert not internals.knows_topic(consumer, "t")
    cluster.update_metadata(
        MetadataResponse_v0([(1, "host", 9092)], [(0, "t", [(0, 0, 1, [1], [1])])])
    )
    assert news == [cluster]
    assert internals.knows_topic(consumer, "t")


async def test_partitions_are_asked_for_only_when_they_are_not_known(consumer: Any) -> None:
    known = MetadataResponse_v0([(1, "host", 9092)], [(0, "t", [(0, 0, 1, [1], [1])])])
    consumer._client.cluster.update_metadata(known)
    asked = 0

    async def fetch_all_metadata() -> Any:
        nonlocal asked
        asked += 1
        return SimpleNamespace(partitions_for_topic={"u": {0, 1, 2}}.get)

    consumer._client.fetch_all_metadata = fetch_all_metadata
    assert await internals.partition_count(consumer, "t") == 1
    assert asked == 0
    assert await internals.partition_count(consumer, "u") == 3
    assert await internals.partition_count(consumer, "v") == 0
    assert asked == 2


@pytest.mark.parametrize("brought", [True, False])
async def test_a_fetch_tells_at_once_that_it_brought_something(
    consumer: Any, brought: bool
) -> None:
    """Not by way of the fetching routine, which would plan the next fetch before the records are taken."""

    async def fetch(*arguments: Any) -> bool:
        asked.append(arguments)
        return brought

    asked: list[Any] = []
    fetcher = consumer._fetcher
    assert callable(fetcher._proc_fetch_request)
    fetcher._proc_fetch_request = fetch
    Buffers(fetcher)
    waiter = fetcher._create_fetch_waiter()
    assert await fetcher._proc_fetch_request("assignment", 1, "request") is False
    assert asked == [("assignment", 1, "request")]
    assert waiter.done() is brought


@pytest.mark.parametrize("half", HALVES)
def test_records_are_made_here(half: str) -> None:
    """``Buffers`` replaces what aiokafka makes of an unpacked record, and reads its iterator."""
    batch = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1,
        base_sequence=-1, batch_size=1000,
    )  # fmt: skip
    batch.append(0, timestamp=7, key=b"k", value=b"v", headers=[("name", b"value")])
    unpacked = PartitionRecords(
        LowerPartition("t", 3), MemoryRecords(bytes(batch.build())), [], 0, None, None, True, 0
    )
    unpacked._consumer_record = core_function(half, "FetchedRecord")
    (record,) = unpacked._records_iterator
    assert (record.topic, record.partition, record.offset, record.timestamp) == ("t", 3, 0, 7)
    assert (record.key, record.value, record.headers) == (b"k", b"v", (("name", b"value"),))
    assert unpacked.next_fetch_offset == 1
