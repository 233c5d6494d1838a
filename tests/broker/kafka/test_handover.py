"""The cooperative assignment, one rule a test; ``test_rounds.py`` puts them through random histories."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import TopicPartition as LowerPartition
from aiokafka import errors as lower
from aiokafka.structs import OffsetAndMetadata

from prosody.broker.kafka.handover import LEAVE_PAUSE_S, TOPIC_LOOK_S
from prosody.broker.kafka.polls import partition_fetch_bytes
from prosody.broker.protocol import Start
from prosody.errors import BrokerError
from tests.broker.kafka.stage import ONE, THREE, TWO, Stage, on_stage
from tests.support import run_virtual, settle


@on_stage
async def test_a_first_assignment_begins_where_the_group_has_committed(stage: Stage) -> None:
    stage.committed[ONE] = OffsetAndMetadata(7, "note")
    await stage.join(ONE, TWO)
    assert stage.listener.events == [("assigned", frozenset({ONE, TWO}))]
    assert stage.listener.starts == {ONE: Start(7, "note", 100), TWO: Start(0, "", 100)}
    assert (stage.position(ONE), stage.position(TWO)) == (7, 0)
    assert set(stage.assignment.pollable) == {ONE, TWO}
    assert stage.looks  # a poll that waited was told


@on_stage
async def test_what_stays_is_not_mentioned_and_goes_on_where_it_was(stage: Stage) -> None:
    await stage.join(ONE, TWO)
    stage.polled_to(ONE, 41)
    await stage.join(ONE, TWO, THREE)
    assert stage.claim.partitions == {ONE, TWO}
    assert stage.claim.generation == 2
    assert stage.listener.events[1:] == [("assigned", frozenset({THREE}))]
    assert (stage.position(ONE), stage.position(TWO)) == (41, 0)


@on_stage
async def test_a_seek_during_a_join_is_done_after_it(stage: Stage) -> None:
    await stage.join(ONE)
    stage.polled_to(ONE, 41)
    await stage.revoke()
    stage.assignment.seek(ONE, 12)
    await stage.assign(ONE)
    assert stage.position(ONE) == 12


@on_stage
async def test_what_moves_is_drained_while_assigned_and_then_not_claimed(stage: Stage) -> None:
    await stage.join(ONE, TWO)
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    stage.listener.revoke = lambda _: ended
    await stage.join(ONE, TWO, release={TWO})
    assert stage.listener.events[-1] == ("revoked", frozenset({TWO}))
    assert set(stage.assignment.pollable) == {ONE}
    assert stage.states[LowerPartition(*TWO)].paused
    stage.assignment.require([ONE, TWO], "commit")  # until the revoke has ended
    await stage.join(ONE, TWO, release={TWO})  # somebody else joined: asked again, told once
    assert stage.states[LowerPartition(*TWO)].paused, "aiokafka forgets that too"
    assert stage.claim.partitions == {ONE, TWO}
    assert stage.listener.names().count("revoked") == 1
    assert stage.rejoins == 0
    ended.set_result(None)
    await settle()
    assert stage.rejoins == 1
    with pytest.raises(BrokerError, match="not assigned"):
        stage.assignment.require([TWO], "commit")
    await stage.join(ONE)
    assert stage.claim.partitions == {ONE}
    assert stage.listener.names().count("lost") == 0


@on_stage
async def test_one_join_serves_all_that_drain_at_about_the_same_time(stage: Stage) -> None:
    await stage.join(ONE, TWO, THREE)
    stage.listener.revoke = lambda tps: asyncio.sleep(0.1 if ONE in tps else 5.0)
    await stage.join(ONE, TWO, THREE, release={ONE, TWO})
    await asyncio.sleep(0.5)
    assert stage.rejoins == 1  # a slow one delays only itself
    await stage.join(TWO, THREE)
    await asyncio.sleep(5.0)
    assert stage.rejoins == 2


@on_stage
async def test_given_up_while_a_join_was_under_way(stage: Stage) -> None:
    """The leader has read the old claim; what it gives back is not begun."""
    await stage.join(ONE, TWO)
    stage.listener.revoke = lambda _: asyncio.sleep(1.0)
    await stage.join(ONE, TWO, release={TWO})
    await stage.revoke()
    assert stage.assignment.claim().partitions == {ONE, TWO}
    await asyncio.sleep(2.0)  # drained, while others are slow to join
    assert stage.rejoins == 0
    await stage.assign(ONE, TWO, release={TWO})
    assert stage.rejoins == 1
    assert stage.listener.names() == ["assigned", "revoked"]
    assert set(stage.assignment.held) == {ONE}


@on_stage
async def test_not_begun_yet_and_already_to_be_released(stage: Stage) -> None:
    stage.failures = [lower.NodeNotReadyError()]
    await stage.join(ONE, release={ONE})
    await asyncio.sleep(1.0)
    assert stage.listener.events == []  # it never heard of it
    assert stage.rejoins == 1
    assert not stage.assignment.held


@pytest.mark.parametrize("new_id", ["", "me again"])
def test_a_reset_of_the_member_id_loses_everything(new_id: str) -> None:
    async def main() -> None:
        stage = Stage()
        await stage.join(ONE, TWO)
        stage.reset(new_id)
        with pytest.raises(BrokerError, match="thrown this member out") as caught:
            stage.assignment.require([ONE], "commit")
        assert not caught.value.retriable
        await stage.join(ONE)
        assert stage.claim.partitions == frozenset()
        assert stage.claim.generation == -1
        assert stage.listener.names() == ["assigned", "lost", "assigned"]
        assert stage.listener.events[1][1] == {ONE, TWO}
        await stage.assignment.close()

    run_virtual(main())


@pytest.mark.parametrize("when", ["before the claim", "after the claim"])
def test_a_reset_in_the_middle_of_a_join(when: str) -> None:
    async def main() -> None:
        stage = Stage()
        await stage.join(ONE)
        await stage.revoke()
        if when == "after the claim":
            assert stage.assignment.claim().partitions == {ONE}
        stage.reset()
        if when == "before the claim":
            assert stage.assignment.claim().partitions == frozenset()
        stage.coordinator.member_id = "another"
        await stage.assign(ONE)
        assert stage.listener.names() == ["assigned", "lost", "assigned"]
        await stage.assignment.close()

    run_virtual(main())


@on_stage
async def test_a_claim_that_was_not_honoured_is_a_loss(stage: Stage) -> None:
    await stage.join(ONE, TWO)
    await stage.join(TWO)
    assert stage.listener.events[-1] == ("lost", frozenset({ONE}))
    assert set(stage.assignment.held) == {TWO}


@on_stage
async def test_lost_while_it_drains(stage: Stage) -> None:
    await stage.join(ONE)
    stage.listener.revoke = lambda _: asyncio.sleep(5.0)
    await stage.join(ONE, release={ONE})
    stage.reset()
    await stage.join(TWO)
    assert stage.listener.names() == ["assigned", "revoked", "lost", "assigned"]
    await asyncio.sleep(10.0)
    assert stage.rejoins == 0  # the end of that drain releases nothing
    assert set(stage.assignment.held) == {TWO}


@on_stage
async def test_lost_while_it_drains_and_back(stage: Stage) -> None:
    """The end of the old drain lets go of nothing that was assigned since."""
    await stage.join(ONE)
    stage.listener.revoke = lambda _: asyncio.sleep(5.0)
    await stage.join(ONE, release={ONE})
    stage.reset("another")
    await stage.join(ONE)
    await asyncio.sleep(10.0)
    assert stage.listener.names() == ["assigned", "revoked", "lost", "assigned"]
    assert set(stage.assignment.held) == {ONE}
    assert stage.rejoins == 0


@on_stage
async def test_a_leaving_member_takes_nothing(stage: Stage) -> None:
    await stage.join(ONE)
    stage.assignment.leaving()
    await stage.join(ONE, TWO)
    assert stage.claim.leaving
    assert set(stage.assignment.held) == {ONE}
    assert stage.listener.names() == ["assigned"]


@on_stage
async def test_each_claim_has_a_higher_sequence_and_the_same_process(stage: Stage) -> None:
    first, second = stage.assignment.claim(), stage.assignment.claim()
    assert first.process == second.process != Stage(seed=2).assignment.claim().process
    assert second.sequence > first.sequence


@on_stage
async def test_commits_wait_for_the_end_of_a_join_and_joins_for_commits(stage: Stage) -> None:
    await stage.join(ONE)
    commit = stage.assignment.commit_begins()
    revoking = asyncio.create_task(stage.revoke())
    await settle()
    assert not revoking.done()
    with pytest.raises(BrokerError, match="rebalance") as caught:
        stage.assignment.require([ONE], "commit")
    assert caught.value.retriable
    settled = asyncio.create_task(stage.assignment.settled())
    commit.set_result(None)
    await revoking
    assert not settled.done()
    await stage.assign(ONE)
    await settled
    stage.assignment.require([ONE], "commit")


@on_stage
async def test_a_commit_that_does_not_end_is_given_up(stage: Stage) -> None:
    await stage.join(ONE)
    commit = stage.assignment.commit_begins()
    await stage.revoke()
    assert commit.cancelled()


@on_stage
async def test_a_broker_that_is_away_delays_the_beginning(stage: Stage) -> None:
    stage.failures = [lower.NodeNotReadyError(), lower.NodeNotReadyError()]
    await stage.join(ONE)
    assert stage.listener.events == []
    assert not stage.assignment.pollable
    await asyncio.sleep(2.0)
    assert stage.listener.names() == ["assigned"]


@on_stage
async def test_a_join_in_the_middle_of_a_beginning(stage: Stage) -> None:
    stage.failures = [lower.NodeNotReadyError()]
    await stage.join(ONE)
    await stage.revoke()
    await asyncio.sleep(2.0)
    assert stage.listener.events == []  # a position set now would be forgotten
    await stage.assign(ONE)
    assert stage.listener.names() == ["assigned"]
    assert stage.position(ONE) == 0


@on_stage
async def test_retention_has_passed_what_was_committed(stage: Stage) -> None:
    stage.committed[ONE] = OffsetAndMetadata(7, "note")
    stage.beginnings[ONE] = 50
    await stage.join(ONE)
    assert stage.listener.starts == {ONE: Start(50, "", 100)}


@on_stage
async def test_retention_passes_a_position(stage: Stage) -> None:
    await stage.join(ONE)
    stage.beginnings[ONE] = 50
    stage.assignment.out_of_range(ONE, 10)
    assert not stage.assignment.pollable
    await settle()
    assert stage.position(ONE) == 50
    assert stage.listener.names() == ["assigned"]
    assert set(stage.assignment.pollable) == {ONE}


def test_what_retention_took_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        stage = Stage()
        stage.committed[ONE] = OffsetAndMetadata(7, "note")
        stage.beginnings[ONE] = 50
        await stage.join(ONE)
        stage.beginnings[ONE] = 90
        stage.assignment.out_of_range(ONE, 60)
        await settle()
        await stage.assignment.close()

    run_virtual(main())
    assert "records of t/1 at offsets 7 to 49 are gone" in caplog.text
    assert "records of t/1 at offsets 60 to 89 are gone" in caplog.text


@on_stage
async def test_another_log_under_a_position(stage: Stage) -> None:
    stage.committed[ONE] = OffsetAndMetadata(90, "note")
    await stage.join(ONE)
    stage.ends[ONE] = 5
    stage.assignment.out_of_range(ONE, 95)
    await settle()
    assert stage.listener.names() == ["assigned", "lost", "assigned"]
    assert stage.listener.starts[ONE] == Start(0, "", 5)
    assert stage.position(ONE) == 0


@on_stage
async def test_an_end_that_lags_is_not_believed_alone(stage: Stage) -> None:
    stage.committed[ONE] = OffsetAndMetadata(150, "note")
    await stage.join(ONE)
    assert stage.listener.starts[ONE] == Start(150, "", 100)
    assert stage.position(ONE) == 150


@on_stage
async def test_a_closed_one_tells_nobody(stage: Stage) -> None:
    await stage.join(ONE)
    waiting = asyncio.create_task(stage.assignment.settled())
    await stage.revoke()
    await stage.assignment.close()
    await waiting
    await stage.assign(ONE)
    assert stage.listener.names() == ["assigned"]
    assert not stage.assignment.pollable


@on_stage
async def test_the_fetch_size_follows_the_assignment(stage: Stage) -> None:
    await stage.join(ONE, TWO)
    assert stage.fetcher._max_partition_fetch_bytes == 512 * 1024


@pytest.mark.parametrize("partitions", [1, 2, 7, 64, 200, 4096])
def test_all_partitions_together_stay_within_the_budget(partitions: int) -> None:
    budget = 64 * 1024 * 1024
    assert partitions * partition_fetch_bytes(budget, partitions) <= budget


def test_the_bounds_of_a_fetch() -> None:
    assert partition_fetch_bytes(1 << 30, 1) == 1 << 20
    assert partition_fetch_bytes(1 << 20, 10_000) == 16 * 1024
    assert partition_fetch_bytes(1 << 20, 0) == 1 << 20


@on_stage
async def test_who_leaves_and_is_not_done_soon_asks_to_be_relieved(stage: Stage) -> None:
    await stage.join(ONE, TWO)
    stage.assignment.leaving()
    stage.assignment.leaving()
    await asyncio.sleep(LEAVE_PAUSE_S - 0.1)
    assert stage.rejoins == 0  # a member that stops by then needs no join
    await asyncio.sleep(1.0)
    assert stage.rejoins == 1
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    stage.listener.revoke = lambda tps: ended if ONE in tps else asyncio.sleep(0)
    await stage.join(ONE, TWO, release={ONE, TWO})
    await asyncio.sleep(1.0)
    assert stage.rejoins == 2
    await stage.join(ONE, release={ONE})
    assert stage.claim.leaving
    assert stage.claim.partitions == {ONE}
    stage.assignment.require([ONE], "commit")
    ended.set_result(None)
    await settle()
    assert not stage.assignment.held


@on_stage
async def test_who_leaves_and_holds_nothing_asks_for_nothing(stage: Stage) -> None:
    await stage.join()
    stage.assignment.leaving()
    await asyncio.sleep(5.0)
    assert stage.rejoins == 0


@on_stage
async def test_a_topic_that_no_broker_lists_is_given_up(stage: Stage) -> None:
    await stage.join(ONE, TWO)
    stage.assignment.topics_changed()
    stage.unknown.add("t")
    stage.listed = [lower.NodeNotReadyError(), set(), {"other"}, lower.KafkaError(), set()]
    stage.assignment.topics_changed()
    stage.assignment.topics_changed()  # looked for once
    await asyncio.sleep(4 * TOPIC_LOOK_S + 0.5)
    assert stage.listener.names() == ["assigned"]
    await asyncio.sleep(1.0)
    assert stage.listener.events[1:] == [("lost", frozenset({ONE, TWO}))]
    assert stage.rejoins == 1
    await stage.join()
    assert stage.claim.partitions == frozenset()


@on_stage
async def test_a_topic_that_some_broker_lists_is_kept(stage: Stage) -> None:
    await stage.join(ONE)
    stage.unknown.add("t")
    stage.listed = [set(), set(), {"t"}, set()]
    stage.assignment.topics_changed()
    await asyncio.sleep(10.0)
    assert stage.listener.names() == ["assigned"]
    assert set(stage.assignment.pollable) == {ONE}
    stage.assignment.topics_changed()  # and looked for again, when it is missing again
    await asyncio.sleep(10.0)
    assert stage.listener.names() == ["assigned", "lost"]


@on_stage
async def test_a_topic_given_up_meanwhile_is_nobodys_loss(stage: Stage) -> None:
    await stage.join(ONE)
    stage.unknown.add("t")
    stage.listed = [set()]
    stage.assignment.topics_changed()
    await stage.join(ONE, release={ONE})
    await asyncio.sleep(10.0)
    assert stage.listener.names() == ["assigned", "revoked"]
