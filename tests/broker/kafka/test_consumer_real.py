"""Polling, committing and losing partitions, on a real Kafka."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import TopicPartition as LowerPartition

from prosody.broker.kafka import consumer as module
from prosody.broker.kafka import internals
from prosody.broker.protocol import OffsetAndMetadata, TopicPartition
from prosody.errors import BrokerError, TopicsNotFoundError
from tests.broker.kafka.support import LIMIT_S, consuming, producing, settings, until_gone
from tests.broker.members import Recorder, fresh, make_topic, read, tps

if TYPE_CHECKING:
    from prosody.broker.kafka import KafkaBroker

pytestmark = pytest.mark.real


async def test_a_cancelled_poll_loses_no_record(kafka: KafkaBroker) -> None:
    topic = await make_topic(kafka, partitions=1)
    [tp] = tps(topic, 0)
    found: list[int] = []
    async with (
        producing(kafka) as producer,
        consuming(kafka, topic) as (consumer, listener),
        asyncio.timeout(LIMIT_S),
    ):
        await listener.until_holds([tp])
        cancelled = 0
        for turn in range(200):
            poll = asyncio.create_task(consumer.poll([tp], max_records=3, timeout_s=5.0))
            sending = asyncio.create_task(producer.send(topic, key=b"k", value=b"v"))
            # Cancelled at ever other points: before it waits, while it waits, when records came.
            for _ in range(turn % 25):
                await asyncio.sleep(0)
            if turn % 4 == 3 and turn % 25:
                await sending
            poll.cancel()
            await asyncio.wait((poll,))
            if poll.cancelled():
                cancelled += 1
            else:
                found += [r.offset for records in poll.result().values() for r in records]
            await sending
        while len(found) < 200:
            polled = await consumer.poll([tp], max_records=50, timeout_s=5.0)
            found += [r.offset for records in polled.values() for r in records]
        # A leaked count would make aiokafka believe for ever that somebody polls.
        assert consumer._consumer._subscription._fetch_count == 0
    assert found == list(range(200))
    assert cancelled >= 8  # those cancelled before their first turn, at least


async def test_wake_ends_a_poll_that_waits_for_an_assignment(kafka: KafkaBroker) -> None:
    topic = await make_topic(kafka, partitions=1)
    async with consuming(kafka, topic) as (consumer, _), asyncio.timeout(LIMIT_S):
        poll = asyncio.create_task(consumer.poll(tps(topic, 0), max_records=1, timeout_s=300.0))
        await asyncio.sleep(0)
        consumer.wake()
        assert await poll == {}


async def test_polling_nothing_counts_as_polling(kafka: KafkaBroker) -> None:
    topic = await make_topic(kafka, partitions=1)
    [tp] = tps(topic, 0)
    async with (
        producing(kafka) as producer,
        consuming(kafka, topic) as (consumer, listener),
        asyncio.timeout(LIMIT_S),
    ):
        await listener.until_holds([tp])
        await producer.send(topic, key=b"k", value=b"v")
        subscription = consumer._consumer._subscription
        subscription._last_fetch_ended -= 1000.0
        assert await consumer.poll([], max_records=10, timeout_s=0.0) == {}
        assert subscription.fetcher_idle_time < 500.0
        waiting = asyncio.create_task(consumer.poll([], max_records=10, timeout_s=300.0))
        await asyncio.sleep(0)
        subscription._last_fetch_ended -= 1000.0
        assert subscription.fetcher_idle_time == 0
        consumer.wake()
        assert await waiting == {}
        assert len(await read(consumer, [tp], 1)) == 1


async def test_a_full_buffer_lets_the_other_partition_through(kafka: KafkaBroker) -> None:
    topic = await make_topic(kafka, partitions=2)
    both = tps(topic, 0, 1)
    async with producing(kafka) as producer:
        keys: dict[int, bytes] = {}
        for n in range(50):
            key = b"%d" % n
            keys[(await producer.send(topic, key=key, value=b"")).partition] = key
        for partition in (0, 1):
            key = keys[partition]
            await asyncio.gather(*(producer.send(topic, key=key, value=b"") for _ in range(200)))
    async with consuming(kafka, topic) as (consumer, listener), asyncio.timeout(LIMIT_S):
        await listener.until_holds(both)
        while len(consumer._consumer._fetcher._records) < 2:
            await consumer.poll([], max_records=1, timeout_s=0.1)
        seen = [set(await consumer.poll(both, max_records=10, timeout_s=1.0)) for _ in range(4)]
        assert seen[0] | seen[1] == both
        assert seen[0] == seen[2] != seen[1] == seen[3]


async def test_a_record_larger_than_every_fetch_limit_gets_through(kafka: KafkaBroker) -> None:
    topic = await make_topic(kafka, partitions=2)
    async with producing(kafka) as producer:
        sent = await producer.send(topic, key=b"k", value=bytes(range(256)) * 2000)
        await producer.send(topic, key=b"k", value=b"after")
    async with (
        consuming(kafka, topic, fetch_bytes=32 * 1024) as (consumer, listener),
        asyncio.timeout(LIMIT_S),
    ):
        await listener.until_holds(tps(topic, 0, 1))
        assert consumer._consumer._fetcher._max_partition_fetch_bytes == 16 * 1024
        records = await read(consumer, tps(topic, sent.partition), 2)
    assert [len(r.value or b"") for r in records] == [512_000, 5]


async def test_metadata_up_to_the_brokers_limit(kafka: KafkaBroker) -> None:
    topic = await make_topic(kafka, partitions=2)
    one, two = TopicPartition(topic, 0), TopicPartition(topic, 1)
    async with producing(kafka) as producer:
        for _ in range(20):
            await producer.send(topic, key=None, value=b"v")
    async with consuming(kafka, topic) as (consumer, listener):
        await listener.until_holds([one, two])
        await consumer.commit({one: OffsetAndMetadata(1, "x" * 4096)})
        with pytest.raises(BrokerError, match="OffsetMetadataTooLarge") as caught:
            await consumer.commit({one: OffsetAndMetadata(2, "x" * 4097)})
        assert not caught.value.retriable
        assert await consumer.committed([one, two]) == {
            one: OffsetAndMetadata(1, "x" * 4096),
            two: None,
        }


async def test_a_member_thrown_out_is_told_lost_and_commits_nothing(kafka: KafkaBroker) -> None:
    topic = await make_topic(kafka, partitions=1)
    [tp] = tps(topic, 0)
    refused: list[BrokerError] = []
    async with (
        producing(kafka) as producer,
        consuming(kafka, topic, session_timeout_s=2.0) as (consumer, listener),
        asyncio.timeout(LIMIT_S),
    ):

        async def commit(_: object) -> None:
            try:
                await consumer.commit({tp: OffsetAndMetadata(1)})
            except BrokerError as error:
                refused.append(error)

        tries: list[asyncio.Task[None]] = []
        listener.lost_hook = lambda _: tries.append(asyncio.create_task(commit(None)))
        await producer.send(topic, key=b"k", value=b"v")
        await listener.until_holds([tp])
        # The broker no longer knows this one: the next heartbeat is refused, as after an expiry.
        consumer._consumer._coordinator.member_id = "forgotten"
        await listener.until(lambda: listener.names() == ["assigned", "lost", "assigned"])
        await tries[0]
        assert len(refused) == 1
        assert await consumer.committed([tp]) == {tp: None}
        # The member that is back works as before, from the committed offset.
        assert [r.offset for r in await read(consumer, [tp], 1)] == [0]
        await consumer.commit({tp: OffsetAndMetadata(1)})


async def test_a_commit_is_not_sent_by_a_member_that_was_just_lost(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker would take it, as that of no member, if the group were empty."""
    topic = await make_topic(kafka, partitions=1)
    [tp] = tps(topic, 0)
    sent: list[object] = []

    async def lose(consumer: Any) -> None:
        consumer._coordinator.reset_generation()

    async def send(_: object, offsets: object) -> None:
        sent.append(offsets)

    async with consuming(kafka, topic) as (consumer, listener), asyncio.timeout(LIMIT_S):
        await listener.until_holds([tp])
        with monkeypatch.context() as patch:
            patch.setattr(internals, "ensure_coordinator", lose)
            patch.setattr(internals, "commit_once", send)
            with pytest.raises(BrokerError, match="thrown this member out"):
                await consumer.commit({tp: OffsetAndMetadata(0)})
        assert not sent


async def test_a_changed_pattern_leaves_what_stays_in_peace(kafka: KafkaBroker) -> None:
    """aiokafka makes a new subscription, in which nothing is known of the old assignment."""
    prefix = fresh("many")
    first = await make_topic(kafka, partitions=1, name=f"{prefix}.a")
    [tp] = tps(first, 0)
    async with (
        producing(kafka) as producer,
        consuming(kafka, f"^{prefix}") as (consumer, listener),
        asyncio.timeout(LIMIT_S),
    ):
        await listener.until_holds([tp])
        await producer.send(first, key=b"k", value=b"1")
        assert [r.value for r in await read(consumer, [tp], 1)] == [b"1"]
        second = await make_topic(kafka, partitions=1, name=f"{prefix}.b")
        await listener.until_holds([tp, *tps(second, 0)])
        assert listener.names() == ["assigned", "assigned"]
        await producer.send(first, key=b"k", value=b"2")
        assert [r.value for r in await read(consumer, [tp], 1)] == [b"2"]
        await consumer.settled()
        await consumer.commit({tp: OffsetAndMetadata(2, "note")})


async def test_a_changed_pattern_still_lets_the_revoked_commit(kafka: KafkaBroker) -> None:
    """aiokafka's own commit() refuses here: its new subscription has no assignment yet."""
    prefix = fresh("many")
    first = await make_topic(kafka, partitions=1, name=f"{prefix}.a")
    [tp] = tps(first, 0)
    async with (
        consuming(kafka, f"^{prefix}", assignor="sticky") as (consumer, listener),
        asyncio.timeout(LIMIT_S),
    ):

        async def commit(partitions: frozenset[TopicPartition]) -> None:
            await consumer.commit(dict.fromkeys(partitions, OffsetAndMetadata(0, "note")))

        listener.revoked_hook = commit
        await listener.until_holds([tp])
        second = await make_topic(kafka, partitions=1, name=f"{prefix}.b")
        await listener.until_holds([tp, *tps(second, 0)])
        assert await consumer.committed([tp]) == {tp: OffsetAndMetadata(0, "note")}


async def test_another_assignor_in_the_group_is_named(kafka: KafkaBroker) -> None:
    topic = await make_topic(kafka, partitions=1)
    group = fresh("group")
    async with (
        consuming(kafka, topic, group_id=group) as (_, listener),
        asyncio.timeout(LIMIT_S),
    ):
        await listener.until_holds(tps(topic, 0))
        with pytest.raises(BrokerError, match="option `assignor`") as caught:
            async with consuming(kafka, topic, group_id=group, assignor="range"):
                pass
        assert not caught.value.retriable


async def test_another_assignor_that_was_not_seen_before_the_join(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that join an empty group at once, or a user who may not describe the group."""

    async def overlook(*_: object) -> None:
        return

    monkeypatch.setattr(module, "require_same_assignor", overlook)
    topic = await make_topic(kafka, partitions=1)
    group = fresh("group")
    async with (
        consuming(kafka, topic, group_id=group) as (_, listener),
        asyncio.timeout(LIMIT_S),
    ):
        await listener.until_holds(tps(topic, 0))
        async with consuming(kafka, topic, group_id=group, assignor="range") as (other, _):
            with pytest.raises(BrokerError, match="assignor option") as caught:
                await other.poll([], max_records=1, timeout_s=LIMIT_S)
            assert not caught.value.retriable


async def test_two_sticky_members_of_one_process(kafka: KafkaBroker) -> None:
    topic = await make_topic(kafka, partitions=4)
    group = fresh("group")
    async with (
        consuming(kafka, topic, group_id=group, assignor="sticky") as (_, one),
        asyncio.timeout(LIMIT_S),
    ):
        await one.until_holds(tps(topic, 0, 1, 2, 3))
        async with consuming(kafka, topic, group_id=group, assignor="sticky") as (_, two):
            await two.until(lambda: len(two.held) == 2)
            await one.until(lambda: len(one.held) == 2)
            assert not one.held & two.held


async def test_a_missing_topic_leaves_nothing_running(kafka: KafkaBroker) -> None:
    before = asyncio.all_tasks()
    there, missing = await make_topic(kafka, partitions=1), fresh("missing")
    consumer = kafka.consumer(settings())
    with pytest.raises(TopicsNotFoundError) as caught:
        await consumer.start([there, missing, "^any"], Recorder())
    assert caught.value.topics == (missing,)
    await until_gone(before)


async def test_a_cancelled_start_leaves_nothing_running(kafka: KafkaBroker) -> None:
    topic = await make_topic(kafka, partitions=1)
    before = asyncio.all_tasks()
    cancelled = 0
    for turns in range(0, 60, 3):
        consumer = kafka.consumer(settings())
        starting = asyncio.create_task(consumer.start([topic], Recorder()))
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait((starting,))
        cancelled += starting.cancelled()
        if not starting.cancelled():
            await consumer.stop()  # it was faster
        await until_gone(before)
    assert cancelled


async def test_stopping_ends_a_listener_that_does_not(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "STOP_LIMIT_S", 0.1)
    topic = await make_topic(kafka, partitions=1)
    before = asyncio.all_tasks()
    consumer = kafka.consumer(settings(assignor="sticky"))
    listener = Recorder()

    async def hang(_: object) -> None:
        await asyncio.Event().wait()

    listener.revoked_hook = hang
    async with asyncio.timeout(LIMIT_S):
        await consumer.start([topic], listener)
        await listener.until_holds(tps(topic, 0))
        internals.request_rejoin(consumer._consumer)
        await listener.until(lambda: listener.running == 1)
        with caplog.at_level(logging.WARNING):
            await consumer.stop()
    assert "did not stop in order" in caplog.text
    assert listener.running == 0
    await until_gone(before)


async def test_a_fetch_can_be_read_with_escapes(kafka: KafkaBroker) -> None:
    """As after a header name that is not UTF-8, with what a real broker answers."""
    topic = await make_topic(kafka, partitions=1)
    [tp] = tps(topic, 0)
    async with producing(kafka) as producer, consuming(kafka, topic) as (consumer, listener):
        await listener.until_holds([tp])
        kept = consumer._polls._buffers._bytes
        kept[LowerPartition(*tp)] = None
        headers = [("h\u00e9", b"1")]
        for n in range(3):
            await producer.send(topic, key=b"k", value=b"%d" % n, headers=headers)
        records = await read(consumer, [tp], 3)
    assert [(r.offset, r.value, list(r.headers)) for r in records] == [
        (n, b"%d" % n, headers) for n in range(3)
    ]
    assert not kept, "read from what was kept"
