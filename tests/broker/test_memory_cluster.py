"""What only the embedded broker has: mock mode, changes of topics at once, loops and threads."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from prosody.broker.memory import MemoryBroker, MemoryCluster
from prosody.broker.protocol import OffsetAndMetadata, ProducerSettings, TopicPartition
from prosody.errors import BrokerError, RecordTooLargeError, TopicsNotFoundError
from prosody.runtime import SystemRuntime
from tests.broker.members import (
    DEADLINE_S,
    Ledger,
    Member,
    Recorder,
    consumer_settings,
    consuming,
    fill,
    member,
    producing,
    tps,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prosody.broker.protocol import Start


@pytest.fixture
def shared() -> Iterator[MemoryCluster]:
    MemoryCluster.reset_shared()
    yield MemoryCluster.shared()
    MemoryCluster.reset_shared()


def test_the_shared_cluster_is_one_until_reset(shared: MemoryCluster) -> None:
    assert MemoryCluster.shared() is shared
    assert MemoryCluster() is not shared
    MemoryCluster.reset_shared()
    assert MemoryCluster.shared() is not shared


FORK = """
import os, signal
from prosody.broker.memory import MemoryCluster
shared = MemoryCluster.shared()
with MemoryCluster._shared_lock:  # as if another thread held it at the moment of the fork
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # a child that hangs ends too
        os._exit(0 if MemoryCluster.shared() is not shared else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_a_shared_cluster_of_its_own() -> None:
    # In a process of its own: one with threads had better not be forked.
    done = subprocess.run([sys.executable, "-c", FORK], timeout=DEADLINE_S, check=False)
    assert done.returncode == 0


# -- mock mode --------------------------------------------------------------------------------


async def test_sends_and_subscriptions_create_topics(memory: MemoryBroker) -> None:
    async with producing(memory) as producer, consuming(memory, "read", 0, 1, 2, 3):
        await producer.send("written", key=b"k", value=b"v")
    assert memory.cluster.topics() == {"read", "written"}
    assert len(memory.cluster.logs("written")) == 4


async def test_without_auto_create_nothing_is_created(cluster: MemoryCluster) -> None:
    broker = MemoryBroker(cluster, runtime=SystemRuntime(), auto_create_topics=False)
    with pytest.raises(TopicsNotFoundError):
        await broker.consumer(consumer_settings("g")).start(["a"], Recorder())
    async with producing(broker) as producer:
        with pytest.raises(BrokerError, match="topic 'a' does not exist"):
            await producer.send("a", key=b"k", value=b"v")
    assert cluster.topics() == frozenset()


async def test_a_record_sent_before_anybody_subscribed_is_kept(memory: MemoryBroker) -> None:
    async with producing(memory) as producer:
        await fill(producer, "t", [b"1", b"2"])
    async with member(memory, "g", "t") as who:
        assert [r.value for r in await who.until_read(2)] == [b"1", b"2"]


async def test_a_record_too_large_is_refused(cluster: MemoryCluster) -> None:
    cluster.max_record_bytes = 10
    broker = MemoryBroker(cluster, runtime=SystemRuntime(), auto_create_topics=True)
    async with producing(broker) as producer:
        await producer.send("t", key=b"k", value=b"v" * 5, headers=[("n", b"val")])
        with pytest.raises(RecordTooLargeError, match=r"record of 11 bytes .* larger than the 10"):
            await producer.send("t", key=b"k", value=b"v" * 5, headers=[("n", b"valu")])


async def test_a_bad_regular_expression_is_refused(memory: MemoryBroker) -> None:
    consumer = memory.consumer(consumer_settings("g"))
    with pytest.raises(BrokerError, match="no regular expression"):
        await consumer.start(["^("], Recorder())
    await consumer.stop()


# -- changes of topics ------------------------------------------------------------------------


async def test_added_partitions_go_to_the_members_and_move_none(memory: MemoryBroker) -> None:
    memory.cluster.create_topic("t", 2)
    ledger = Ledger()
    async with (
        member(memory, "g", "t", name="one", ledger=ledger) as one,
        member(memory, "g", "t", name="two", ledger=ledger) as two,
    ):
        await two.listener.until(lambda: len(two.listener.held) == 1)
        await one.listener.until(lambda: len(one.listener.held) == 1)
        before = [set(one.listener.held), set(two.listener.held)]
        memory.cluster.add_partitions("t", 4)
        await one.listener.until(lambda: len(one.listener.held) == 2)
        await two.listener.until(lambda: len(two.listener.held) == 2)
        assert before[0] < one.listener.held
        assert before[1] < two.listener.held
    assert ledger.faults == []
    for count in (4, 3):
        with pytest.raises(BrokerError, match="has 4 partitions already"):
            memory.cluster.add_partitions("t", count)


async def test_a_deleted_topic_is_lost_and_a_new_one_of_its_name_begins_anew(
    memory: MemoryBroker,
) -> None:
    memory.cluster.create_topic("t", 1)
    [tp] = tps("t", 0)
    async with producing(memory) as producer, member(memory, "g", "t") as who:
        await fill(producer, "t", [b"old"] * 3)
        await who.until_read(3)
        await who.consumer.commit({tp: OffsetAndMetadata(3)})
        memory.cluster.delete_topic("t")
        memory.cluster.create_topic("t", 1)
        await who.listener.until(lambda: who.listener.names() == ["assigned", "lost", "assigned"])
        assert await who.consumer.committed([tp]) == {tp: None}
        await fill(producer, "t", [b"new"])
        assert (await who.until_read(4))[-1].value == b"new"


async def test_a_topic_deleted_while_it_is_revoked_is_not_lost_as_well(
    memory: MemoryBroker,
) -> None:
    memory.cluster.create_topic("t", 2)
    async with member(memory, "g", "t", name="one") as one:
        await one.listener.until_holds(tps("t", 0, 1))

        async def delete(_: frozenset[TopicPartition]) -> None:
            memory.cluster.delete_topic("t")

        one.listener.revoked_hook = delete
        async with member(memory, "g", "t", name="two"):
            await one.listener.until(lambda: "lost" in one.listener.names())
    [revoked] = [p for name, p in one.listener.events if name == "revoked"]
    assert [p for name, p in one.listener.events if name == "lost"] == [tps("t", 0, 1) - revoked]


# -- a listener that fails --------------------------------------------------------------------


class HastyClock(SystemRuntime):
    """A clock that a test can put forward."""

    ahead = 0.0

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead


async def test_a_member_too_slow_to_give_up_is_thrown_out(cluster: MemoryCluster) -> None:
    runtime = HastyClock()
    broker = MemoryBroker(cluster, runtime=runtime, auto_create_topics=True)
    cluster.create_topic("t", 2)
    gate = asyncio.Event()
    refused: list[BrokerError] = []
    async with member(broker, "g", "t", name="slow") as slow:
        await slow.listener.until_holds(tps("t", 0, 1))

        async def dawdle(partitions: frozenset[TopicPartition]) -> None:
            await gate.wait()
            try:
                await slow.consumer.commit(dict.fromkeys(partitions, OffsetAndMetadata(0)))
            except BrokerError as error:
                refused.append(error)

        slow.listener.revoked_hook = dawdle
        async with member(broker, "g", "t", name="waits") as waits:
            await slow.listener.until(lambda: slow.listener.running == 1)
            [revoked] = slow.listener.revoking
            # An outage is not its fault: it has all its time again.
            runtime.ahead = 60.0
            cluster.outage()
            cluster.restore()
            for _ in range(20):
                await asyncio.sleep(0)
            assert slow.listener.names() == ["assigned", "revoked"]
            runtime.ahead = 120.0
            cluster.add_partitions("t", 3)  # makes the waiting one look
            await slow.listener.until(lambda: "lost" in slow.listener.names())
            [lost] = [given for name, given in slow.listener.events if name == "lost"]
            assert lost >= tps("t", 0, 1)
            assert slow.listener.running >= 1
            # It is back, and is given its share.
            await waits.listener.until(lambda: revoked in waits.listener.held)
            await slow.listener.until(lambda: bool(slow.listener.held))
            slow.listener.revoked_hook = Recorder().revoked_hook
            gate.set()
            await slow.listener.until(lambda: slow.listener.running == 0)
            assert len(refused) == 1


async def test_a_listener_that_raises_does_not_stop_the_group(
    memory: MemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    memory.cluster.create_topic("t", 2)

    class Broken(Recorder):
        def on_assigned(self, starts: Mapping[TopicPartition, Start]) -> None:
            super().on_assigned(starts)
            raise ValueError("in assigned")

        async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
            await super().on_revoked(partitions)
            raise ValueError("in revoked")

        def on_lost(self, partitions: frozenset[TopicPartition]) -> None:
            super().on_lost(partitions)
            raise ValueError("in lost")

    one = Member(memory, "g", "one")
    one.listener = Broken("one")
    await one.join("t")
    await one.listener.until_holds(tps("t", 0, 1))
    async with member(memory, "g", "t", name="two") as two, producing(memory) as producer:
        await two.listener.until(lambda: len(two.listener.held) == 1)
        for n in range(20):
            await producer.send("t", key=b"%d" % n, value=b"")
        await one.until_read(1)
        memory.cluster.expel("g", "one")
        await one.listener.until(lambda: one.listener.names()[-2:] == ["lost", "assigned"])
    await one.leave()
    for when in ("assigned", "revoked", "lost"):
        assert f"in {when}" in caplog.text


async def test_a_revoke_that_cancels_itself_still_hands_over(memory: MemoryBroker) -> None:
    memory.cluster.create_topic("t", 2)

    async def cancel(_: frozenset[TopicPartition]) -> None:
        raise asyncio.CancelledError

    async with member(memory, "g", "t", name="one") as one:
        await one.listener.until_holds(tps("t", 0, 1))
        one.listener.revoked_hook = cancel
        async with member(memory, "g", "t", name="two") as two:
            await two.listener.until(lambda: len(two.listener.held) == 1)


async def test_a_consumer_may_be_stopped_by_its_own_revoke(memory: MemoryBroker) -> None:
    memory.cluster.create_topic("t", 2)
    before = asyncio.all_tasks()
    async with member(memory, "g", "t", name="one") as one:
        await one.listener.until_holds(tps("t", 0, 1))
        stopped: list[bool] = []

        async def leave(_: frozenset[TopicPartition]) -> None:
            await one.leave()
            stopped.append(True)

        one.listener.revoked_hook = leave
        async with member(memory, "g", "t", name="two") as two:
            await two.listener.until_holds(tps("t", 0, 1))
    assert stopped == [True]
    async with asyncio.timeout(DEADLINE_S):
        while left := asyncio.all_tasks() - before:
            await asyncio.wait(left)


# -- loops and threads ------------------------------------------------------------------------


def test_a_member_whose_loop_ended_is_removed_when_another_joins(cluster: MemoryCluster) -> None:
    broker = MemoryBroker(cluster, runtime=SystemRuntime(), auto_create_topics=True)

    async def join_and_forget() -> None:
        ghost = Member(broker, "g", "ghost")
        await ghost.join("t")
        await ghost.listener.until(lambda: len(ghost.listener.held) == 4)

    async def join_after() -> None:
        async with member(broker, "g", "t", name="living") as living, asyncio.timeout(5.0):
            await living.listener.until_holds(tps("t", 0, 1, 2, 3))
            assert [m.client_id for m in cluster.group("g").members] == ["living"]

    asyncio.run(join_and_forget())
    asyncio.run(join_after())


def test_a_poll_is_woken_from_another_loop(cluster: MemoryCluster) -> None:
    broker = MemoryBroker(cluster, runtime=SystemRuntime(), auto_create_topics=True)
    waiting = threading.Event()
    values: list[bytes | None] = []

    async def consume() -> None:
        async with consuming(broker, "t", 0, 1, 2, 3) as consumer, asyncio.timeout(DEADLINE_S):
            poll = asyncio.create_task(
                consumer.poll(tps("t", 0, 1, 2, 3), max_records=10, timeout_s=300.0)
            )
            for _ in range(5):
                await asyncio.sleep(0)
            waiting.set()
            for records in (await poll).values():
                values.extend(r.value for r in records)

    async def send() -> None:
        async with producing(broker) as producer:
            await producer.send("t", key=b"k", value=b"from afar")

    thread = threading.Thread(target=asyncio.run, args=(consume(),))
    thread.start()
    assert waiting.wait(DEADLINE_S)
    asyncio.run(send())
    thread.join(DEADLINE_S)
    assert values == [b"from afar"]


def test_members_on_different_loops_hand_over(cluster: MemoryCluster) -> None:
    broker = MemoryBroker(cluster, runtime=SystemRuntime(), auto_create_topics=True)
    cluster.create_topic("t", 2)
    ledger, holds, done = Ledger(), threading.Event(), threading.Event()

    async def first() -> None:
        async with member(broker, "g", "t", name="first", ledger=ledger) as who:
            await who.listener.until_holds(tps("t", 0, 1))
            holds.set()
            await who.listener.until(lambda: "revoked" in who.listener.names())
            await who.listener.until_holds(tps("t", 0, 1))
            done.set()

    async def second() -> None:
        async with member(broker, "g", "t", name="second", ledger=ledger) as who:
            await who.listener.until(lambda: len(who.listener.held) == 1)

    thread = threading.Thread(target=asyncio.run, args=(first(),))
    thread.start()
    assert holds.wait(DEADLINE_S)
    asyncio.run(second())
    assert done.wait(DEADLINE_S)
    thread.join(DEADLINE_S)
    assert ledger.faults == []


def test_senders_on_several_threads_lose_nothing(cluster: MemoryCluster) -> None:
    broker = MemoryBroker(cluster, runtime=SystemRuntime(), auto_create_topics=True)

    async def send(name: bytes) -> None:
        async with producing(broker) as producer:
            await fill(producer, "t", [b"%d" % n for n in range(2_000)], key=name)

    threads = [threading.Thread(target=asyncio.run, args=(send(b"%d" % n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    found = [r for log in cluster.logs("t") for r in log.read(0, 10_000)]
    assert len(found) == 8_000
    for n in range(4):
        values = [r.value for r in found if r.key == b"%d" % n]
        assert values == [b"%d" % i for i in range(2_000)]


async def test_a_program_that_only_sends_lets_others_run(memory: MemoryBroker) -> None:
    async with member(memory, "g", "t") as who, producing(memory) as producer:
        async with asyncio.timeout(DEADLINE_S):
            while not who.records:
                await producer.send("t", key=b"k", value=b"v")


async def test_a_program_that_only_polls_lets_others_run(memory: MemoryBroker) -> None:
    ran = asyncio.Event()
    async with producing(memory) as producer, consuming(memory, "t", 0, 1, 2, 3) as consumer:
        await producer.send("t", key=b"k", value=b"v")
        asyncio.get_running_loop().call_soon(ran.set)
        polls = 0
        while not ran.is_set():
            for tp in tps("t", 0, 1, 2, 3):
                consumer.seek(tp, 0)
            await consumer.poll(tps("t", 0, 1, 2, 3), max_records=1, timeout_s=1.0)
            polls += 1
            assert polls < 100


# -- states ----------------------------------------------------------------------------------


async def test_clients_start_once(memory: MemoryBroker) -> None:
    producer = memory.producer(
        ProducerSettings(client_id="p", compression=None, partitioner="crc32")
    )
    with pytest.raises(BrokerError, match="not started"):
        await producer.send("t", key=None, value=None)
    await producer.start()
    consumer = memory.consumer(consumer_settings("g"))
    with pytest.raises(BrokerError, match="not started"):
        await consumer.poll((), max_records=1, timeout_s=0)
    await consumer.start(["t"], Recorder())
    for client_start in (producer.start(), consumer.start(["t"], Recorder())):
        with pytest.raises(BrokerError, match="started before"):
            await client_start
    await producer.stop()
    await consumer.stop()
