"""The ways to disturb an embedded cluster; each does to members what the real thing would do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from prosody.broker.protocol import OffsetAndMetadata, Start, TopicPartition
from prosody.errors import BrokerError, CommitMetadataTooLargeError, SendTimeoutError
from tests.broker.members import (
    DEADLINE_S,
    Ledger,
    Member,
    Recorder,
    consumer_settings,
    fill,
    member,
    producing,
    reading,
    tps,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prosody.broker.memory import MemoryBroker

UNREACHABLE = "the broker cannot be reached"


async def turns() -> None:
    """Let everything happen that needs no outside event."""
    for _ in range(20):
        await asyncio.sleep(0)


# -- single calls -----------------------------------------------------------------------------


async def test_faults_are_injected_at_each_call(memory: MemoryBroker) -> None:
    calls: list[tuple[str, str]] = []
    fail = ""

    def on_call(name: str, client_id: str) -> None:
        calls.append((name, client_id))
        if name == fail:
            raise (
                SendTimeoutError("injected")
                if name == "send"
                else BrokerError("injected", retriable=True)
            )

    memory.cluster.on_call = on_call
    [tp] = tps("t", 0)
    admin = memory.admin()
    await admin.create_topic("t", partitions=1)
    async with producing(memory, client_id="p") as producer, reading(memory, "r") as reader:
        consumer = memory.consumer(consumer_settings("g", "c"))
        listener = Recorder()
        fail = "start"
        with pytest.raises(BrokerError, match="injected"):
            await consumer.start(["t"], listener)
        fail = ""
        await consumer.start(["t"], listener)  # the failed one had no effect
        await listener.until_holds([tp])
        seam: dict[str, Callable[[], Awaitable[object]]] = {
            "send": lambda: producer.send("t", key=b"k", value=b"v"),
            "poll": lambda: consumer.poll([tp], max_records=1, timeout_s=0),
            "commit": lambda: consumer.commit({tp: OffsetAndMetadata(0)}),
            "committed": lambda: consumer.committed([tp]),
            "end_offsets": lambda: consumer.end_offsets([tp]),
            "partition_count": lambda: consumer.partition_count("t"),
            "read": lambda: reader.read(tp, 0),
            "topics": admin.topics,
            "create_topic": lambda: admin.create_topic("u"),
            "delete_topic": lambda: admin.delete_topic("t"),
        }
        for name, call in seam.items():
            fail = name
            with pytest.raises((BrokerError, SendTimeoutError), match="injected"):
                await call()
        assert {name for name, _ in calls} == {*seam, "start"}
        assert {c for _, c in calls} == {"p", "c", "r", "admin"}
        fail = ""
        assert await consumer.committed([tp]) == {tp: None}
        assert await consumer.end_offsets([tp]) == {tp: 0}
        # An outage meets the same calls, and no other.
        told = len(calls)
        memory.cluster.outage()
        for call in seam.values():
            with pytest.raises(BrokerError, match=UNREACHABLE) as caught:
                await call()
            assert caught.value.retriable
        with pytest.raises(BrokerError, match=UNREACHABLE):
            await memory.consumer(consumer_settings("g")).start(["t"], Recorder())
        consumer.seek(tp, 0)
        await consumer.settled()
        assert len(calls) == told
        memory.cluster.restore()
        assert await consumer.committed([tp]) == {tp: None}
        fail = "stop"
        await consumer.stop()
    assert memory.cluster.topics() == {"t"}


async def test_a_note_too_long_spoils_the_whole_commit(memory: MemoryBroker) -> None:
    memory.cluster.create_topic("t", 2)
    memory.cluster.max_metadata_chars = 5
    one, two = sorted(tps("t", 0, 1))
    async with member(memory, "g", "t") as who:
        await who.listener.until_holds([one, two])
        with pytest.raises(CommitMetadataTooLargeError, match=r"t:1 .* the 5 characters") as caught:
            await who.consumer.commit(
                {one: OffsetAndMetadata(0, "fits"), two: OffsetAndMetadata(0, "is too long")}
            )
        assert not caught.value.retriable
        assert await who.consumer.committed([one, two]) == {one: None, two: None}
        await who.consumer.commit({two: OffsetAndMetadata(0, "12345")})


# -- readers ----------------------------------------------------------------------------------


async def test_reads_get_no_answer_until_they_are_released(memory: MemoryBroker) -> None:
    memory.cluster.create_topic("t", 1)
    [tp] = tps("t", 0)
    async with (
        producing(memory) as producer,
        reading(memory, "mute") as mute,
        reading(memory, "other") as other,
    ):
        await fill(producer, "t", [b"0", b"1"])
        memory.cluster.hold_reads("mute")
        waiting = [asyncio.create_task(mute.read(tp, offset)) for offset in (0, 1, 2, 0)]
        await asyncio.sleep(0.01)
        assert (await other.read(tp, 1)) is not None
        waiting[3].cancel()
        await asyncio.wait(waiting[3:])
        assert not any(task.done() for task in waiting[:3])
        # From another thread, as any fault.
        await asyncio.to_thread(memory.cluster.release_reads, "mute")
        found = await asyncio.gather(*waiting[:3])
        assert [record and record.value for record in found] == [b"0", b"1", None]
        assert (await mute.read(tp, 1)) is not None


async def test_reads_that_get_no_answer_end_by_their_timeout_or_a_stop(
    memory: MemoryBroker,
) -> None:
    memory.cluster.create_topic("t", 1)
    [tp] = tps("t", 0)
    memory.cluster.hold_reads("reader")
    async with reading(memory, seek_timeout_s=0.02) as reader:
        with pytest.raises(
            BrokerError, match=r"t:0 at offset 7: no answer within 0\.02 s"
        ) as caught:
            await reader.read(tp, 7)
        assert caught.value.retriable
    async with reading(memory) as reader:
        waiting = asyncio.create_task(reader.read(tp, 0))
        await asyncio.sleep(0.01)
        await reader.stop()
        with pytest.raises(BrokerError, match="stopped"):
            await waiting


async def test_a_reader_works_again_after_an_outage(memory: MemoryBroker) -> None:
    memory.cluster.create_topic("t", 1)
    [tp] = tps("t", 0)
    async with producing(memory) as producer, reading(memory) as reader:
        await fill(producer, "t", [b"0"])
        memory.cluster.outage()
        with pytest.raises(BrokerError, match=UNREACHABLE):
            await reader.read(tp, 0)
        memory.cluster.restore()
        assert (await reader.read(tp, 0)) is not None


# -- outages ----------------------------------------------------------------------------------


async def test_in_an_outage_nobody_hears_anything_and_afterwards_all_goes_on(
    memory: MemoryBroker,
) -> None:
    memory.cluster.create_topic("t", 2)
    ledger = Ledger()
    async with member(memory, "g", "t", name="one", ledger=ledger) as one:
        await one.listener.until_holds(tps("t", 0, 1))
        await one.end_polling()
        async with producing(memory) as producer:
            waiting = asyncio.create_task(
                one.consumer.poll(tps("t", 0, 1), max_records=1, timeout_s=300.0)
            )
            await turns()
            memory.cluster.outage()
            async with asyncio.timeout(DEADLINE_S):
                with pytest.raises(BrokerError, match=UNREACHABLE) as caught:
                    await waiting
            assert caught.value.retriable
            problems = [one.consumer.problem]
            memory.cluster.add_partitions("t", 3)  # by others: this member cannot know
            memory.cluster.expel("g", "one")
            await turns()
            assert one.listener.names() == ["assigned"]
            memory.cluster.restore()
            await one.listener.until_holds(tps("t", 0, 1, 2))
            assert one.listener.names() == ["assigned", "lost", "assigned"]
            problems.append(one.consumer.problem)
            assert problems == [UNREACHABLE, None]
            await fill(producer, "t", [b"v"])
            found = await one.consumer.poll(tps("t", 0, 1, 2), max_records=1, timeout_s=300.0)
            assert found


async def test_stop_ends_during_an_outage(memory: MemoryBroker) -> None:
    who = await Member(memory, "g").join("t")
    await who.listener.until_holds(tps("t", 0, 1, 2, 3))
    await who.end_polling()
    memory.cluster.outage()
    async with asyncio.timeout(DEADLINE_S):
        await who.leave()
    memory.cluster.restore()
    async with member(memory, "g", "t") as other:
        await other.listener.until_holds(tps("t", 0, 1, 2, 3))


# -- thrown out, silent, crashed --------------------------------------------------------------


async def test_an_expelled_member_loses_all_commits_nothing_and_joins_again(
    memory: MemoryBroker,
) -> None:
    memory.cluster.create_topic("t", 2)
    async with member(memory, "g", "t", name="one") as one:
        await one.listener.until_holds(tps("t", 0, 1))
        seen: list[object] = []

        def look(partitions: frozenset[TopicPartition]) -> None:
            seen.append(one.consumer.problem)
            for tp in partitions:
                try:  # runs to its end at once
                    one.consumer.commit({tp: OffsetAndMetadata(0)}).send(None)
                except BrokerError as error:
                    seen.append(error.retriable)

        one.listener.lost_hook = look
        await one.end_polling()
        memory.cluster.expel("g", "one")
        await one.listener.until(lambda: one.listener.names() == ["assigned", "lost", "assigned"])
        assert one.listener.events[1][1] == tps("t", 0, 1)
        assert seen == ["thrown out of group 'g', joining again", False, False]
        assert one.consumer.problem is None
        await one.listener.until_holds(tps("t", 0, 1))
    for attempt in (memory.cluster.expel, memory.cluster.crash):
        with pytest.raises(BrokerError, match="no member with client id 'one'"):
            attempt("g", "one")


async def test_a_silent_member_goes_on_as_a_zombie_and_its_commits_are_refused(
    memory: MemoryBroker,
) -> None:
    memory.cluster.create_topic("t", 1)
    [tp] = tps("t", 0)
    async with (
        producing(memory) as producer,
        member(memory, "g", "t", name="zombie", ledger=Ledger()) as zombie,
    ):
        await zombie.listener.until_holds([tp])
        memory.cluster.hold_news("zombie")
        # A ledger of its own: that two believe to hold the partition is the point.
        async with member(memory, "g", "t", name="heir") as heir:
            memory.cluster.expel("g", "zombie")
            await heir.listener.until_holds([tp])
            await fill(producer, "t", [b"v"])
            await heir.until_read(1)
            await zombie.until_read(1)
            assert zombie.listener.names() == ["assigned"]
            assert zombie.consumer.problem is None
            with pytest.raises(
                BrokerError, match="has not assigned t:0 to client 'zombie'"
            ) as caught:
                await zombie.consumer.commit({tp: OffsetAndMetadata(1)})
            assert not caught.value.retriable
            await heir.consumer.commit({tp: OffsetAndMetadata(1, "by the heir")})
            memory.cluster.release_news("zombie")
            await zombie.listener.until(lambda: zombie.listener.names() == ["assigned", "lost"])
        await zombie.listener.until_holds([tp])
        assert zombie.listener.starts == {tp: Start(1, "by the heir", 1)}
    memory.cluster.release_news("zombie")  # nothing to release


async def test_a_member_that_is_only_silent_keeps_what_it_has(memory: MemoryBroker) -> None:
    memory.cluster.create_topic("t", 2)
    ledger = Ledger()
    async with member(memory, "g", "t", name="one", ledger=ledger) as one:
        await one.listener.until_holds(tps("t", 0, 1))
        memory.cluster.hold_news("one")
        memory.cluster.hold_news("one")
        async with member(memory, "g", "t", name="two", ledger=ledger) as two:
            await turns()
            assert not two.listener.held
            memory.cluster.release_news("one")
            await two.listener.until(lambda: len(two.listener.held) == 1)
            assert one.listener.names() == ["assigned", "revoked"]


@pytest.mark.parametrize("thrown_out_before", [False, True])
async def test_a_crashed_member_vanishes_and_its_group_does_not_know(
    memory: MemoryBroker, thrown_out_before: bool
) -> None:
    memory.cluster.create_topic("t", 2)
    before = asyncio.all_tasks()
    crashed = await Member(memory, "g", "crashed").join("t")
    await crashed.listener.until_holds(tps("t", 0, 1))
    await crashed.end_polling()
    crashed.listener.revoked_hook = lambda _: asyncio.Event().wait()  # type: ignore[assignment,return-value]
    async with member(memory, "g", "t", name="heir") as heir:
        await crashed.listener.until(lambda: crashed.listener.running == 1)
        told = list(crashed.listener.events)
        if thrown_out_before:
            memory.cluster.hold_news("crashed")
            memory.cluster.expel("g", "crashed")
        waiting = asyncio.create_task(crashed.consumer.poll((), max_records=1, timeout_s=300.0))
        await turns()
        memory.cluster.crash("g", "crashed")
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(BrokerError, match="this consumer is crashed"):
                await waiting
        await turns()
        assert crashed.listener.running == 0  # cancelled with all the rest
        for call in (
            crashed.consumer.poll((), max_records=1, timeout_s=0),
            crashed.consumer.commit({}),
            crashed.consumer.settled(),
            crashed.consumer.end_offsets(()),
        ):
            with pytest.raises(BrokerError, match="this consumer is crashed"):
                await call
        if not thrown_out_before:
            assert not heir.listener.held
            memory.cluster.expel("g", "crashed")
        await heir.listener.until_holds(tps("t", 0, 1))
        assert crashed.listener.events == told
        # Stopping what has crashed ends, and takes nothing away from anybody.
        generation = memory.cluster.group("g").generation
        await crashed.consumer.stop()
        assert memory.cluster.group("g").generation == generation
        assert not memory.cluster.group("g").gone
    await turns()
    assert asyncio.all_tasks() <= before


async def test_a_dead_member_is_not_thrown_out_by_who_waits_for_it(memory: MemoryBroker) -> None:
    memory.cluster.create_topic("t", 2)
    dead = await Member(memory, "g", "dead").join("t")
    await dead.listener.until_holds(tps("t", 0, 1))
    await dead.end_polling()
    memory.cluster.crash("g", "dead")
    async with member(memory, "g", "t", name="heir") as heir:
        group = memory.cluster.group("g")
        with memory.cluster.lock:
            assert group.asked
            group.asked = dict.fromkeys(group.asked, -1_000_000.0)
        memory.cluster.expel_overdue(group)
        await turns()
        assert not heir.listener.held
        memory.cluster.expel("g", "dead")
        await heir.listener.until_holds(tps("t", 0, 1))
    await dead.consumer.stop()


async def test_the_revoke_of_what_was_lost_and_came_back_gives_nothing_away(
    memory: MemoryBroker,
) -> None:
    memory.cluster.create_topic("t", 2)
    async with member(memory, "g", "t", name="one") as one:
        await one.listener.until_holds(tps("t", 0, 1))
        gate = asyncio.Event()

        async def wait(_: frozenset[TopicPartition]) -> None:
            await gate.wait()

        one.listener.revoked_hook = wait
        async with member(memory, "g", "t", name="short"):
            await one.listener.until(lambda: one.listener.running == 1)
        memory.cluster.expel("g", "one")
        await one.listener.until(lambda: one.listener.names()[-2:] == ["lost", "assigned"])
        told = list(one.listener.events)
        gate.set()
        await one.listener.until(lambda: one.listener.running == 0)
        await turns()
        assert one.listener.events == told
        assert one.listener.held == tps("t", 0, 1)
        await one.consumer.commit(dict.fromkeys(tps("t", 0, 1), OffsetAndMetadata(0)))
        async with producing(memory) as producer:
            for n in range(20):
                await producer.send("t", key=b"%d" % n, value=b"")
        await one.until_read(20)


async def test_what_a_leaving_member_has_stays_with_it_while_nobody_else_could_take_it(
    memory: MemoryBroker,
) -> None:
    memory.cluster.create_topic("t", 4)
    ledger = Ledger()
    async with member(memory, "g", "t", name="leaves", ledger=ledger) as leaves:
        await leaves.listener.until_holds(tps("t", 0, 1, 2, 3))
        leaves.consumer.leaving()
        leaves.consumer.leaving()
        await turns()
        memory.cluster.add_partitions("t", 5)
        await turns()
        assert leaves.listener.names() == ["assigned"]
        await leaves.consumer.commit({TopicPartition("t", 0): OffsetAndMetadata(0)})
        async with member(memory, "g", "t", name="stays", ledger=ledger) as stays:
            await stays.listener.until_holds(tps("t", 0, 1, 2, 3, 4))
            assert leaves.listener.held == set()


async def test_a_leaving_member_does_not_get_back_what_it_was_giving_up(
    memory: MemoryBroker,
) -> None:
    memory.cluster.create_topic("t", 2)
    ledger = Ledger()
    async with member(memory, "g", "t", name="leaves", ledger=ledger) as leaves:
        await leaves.listener.until_holds(tps("t", 0, 1))
        gate = asyncio.Event()

        async def wait(_: frozenset[TopicPartition]) -> None:
            await gate.wait()

        leaves.listener.revoked_hook = wait
        async with member(memory, "g", "t", name="short", ledger=ledger):
            await leaves.listener.until(lambda: leaves.listener.running == 1)
        leaves.consumer.leaving()
        gate.set()
        await leaves.listener.until(lambda: len(leaves.listener.held) == 1)
        await turns()
        memory.cluster.expel("g", "leaves")
        await leaves.listener.until(lambda: not leaves.listener.held)
        await turns()
        # Also when it joins anew, and nobody else is there.
        assert leaves.listener.names() == ["assigned", "revoked", "lost"]


# -- between two assignments ------------------------------------------------------------------


async def test_an_unsettled_group_refuses_commits_until_it_is_settled(memory: MemoryBroker) -> None:
    memory.cluster.create_topic("t", 1)
    [tp] = tps("t", 0)
    async with member(memory, "g", "t") as who:
        await who.listener.until_holds([tp])
        memory.cluster.unsettle("g")
        with pytest.raises(BrokerError, match="between two assignments") as caught:
            await who.consumer.commit({tp: OffsetAndMetadata(0)})
        assert caught.value.retriable
        waiting = [asyncio.create_task(who.consumer.settled()) for _ in range(2)]
        await turns()
        assert not any(task.done() for task in waiting)
        memory.cluster.settle("g")
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*waiting)
        await who.consumer.commit({tp: OffsetAndMetadata(0)})
        # One that waits at the end is not forgotten.
        memory.cluster.unsettle("g")
        last = asyncio.create_task(who.consumer.settled())
        await turns()
    async with asyncio.timeout(DEADLINE_S):
        await last
