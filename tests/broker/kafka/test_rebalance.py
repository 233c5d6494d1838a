"""The assignment, driven as aiokafka drives it, over a consumer that only has a membership."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import TopicPartition as LowerPartition

from prosody.broker.kafka.rebalance import Assignment, partition_fetch_bytes
from prosody.broker.protocol import TopicPartition
from prosody.errors import BrokerError
from tests.broker.members import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

ONE, TWO = TopicPartition("t", 1), TopicPartition("t", 2)
LOWER = {LowerPartition("t", 1), LowerPartition("t", 2)}


class Stage:
    def __init__(self) -> None:
        self.coordinator = SimpleNamespace(generation=1, member_id="me")
        self.fetcher = SimpleNamespace(_max_partition_fetch_bytes=0)
        self.consumer: Any = SimpleNamespace(_coordinator=self.coordinator, _fetcher=self.fetcher)
        self.listener = Recorder()
        self.looks = 0
        self.assignment = self.make(20.0)

    def make(self, commit_grace_s: float) -> Assignment:
        return Assignment(
            self.consumer,
            self.listener,
            fetch_bytes=1 << 20,
            commit_grace_s=commit_grace_s,
            on_pollable=self.look,
        )

    def look(self) -> None:
        assert self.assignment.pollable
        self.looks += 1

    def lose_membership(self) -> None:
        self.coordinator.generation, self.coordinator.member_id = -1, ""


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_the_first_revoke_of_nothing_is_no_news(stage: Stage) -> None:
    await stage.assignment.on_partitions_revoked(set())
    assert stage.listener.events == []


async def test_assigned_then_revoked(stage: Stage) -> None:
    await stage.assignment.on_partitions_assigned(LOWER)
    await stage.assignment.on_partitions_revoked(LOWER)
    both = frozenset({ONE, TWO})
    assert stage.listener.events == [("assigned", both), ("revoked", both)]
    assert all(type(tp) is TopicPartition for tp in stage.listener.events[0][1])
    assert not stage.assignment.held
    assert not stage.assignment.pollable


@pytest.mark.parametrize("reset", ["lose_membership", "new_member"])
async def test_a_reset_membership_means_lost(stage: Stage, reset: str) -> None:
    await stage.assignment.on_partitions_assigned(LOWER)
    if reset == "lose_membership":
        stage.lose_membership()
    else:
        stage.coordinator.member_id = "me again"
    seen: list[bool] = []

    async def look(_: object) -> None:
        with pytest.raises(BrokerError, match="not assigned"):
            stage.assignment.require([ONE], "commit")
        seen.append(True)

    stage.listener.lost_hook = look
    await stage.assignment.on_partitions_revoked(LOWER)
    assert stage.listener.names() == ["assigned", "lost"]
    assert seen


async def test_nothing_is_committed_between_the_loss_and_its_news(stage: Stage) -> None:
    await stage.assignment.on_partitions_assigned(LOWER)
    stage.assignment.require([ONE, TWO], "commit")
    stage.lose_membership()
    with pytest.raises(BrokerError, match="thrown this member out") as caught:
        stage.assignment.require([ONE], "commit")
    assert not caught.value.retriable


async def test_held_and_pollable(stage: Stage) -> None:
    states: list[tuple[str, int, int]] = []

    def note(name: str) -> Callable[[object], Any]:
        async def hook(_: object) -> None:
            states.append((name, len(stage.assignment.held), len(stage.assignment.pollable)))

        return hook

    stage.listener.assigned_hook = note("assigned")
    stage.listener.revoked_hook = note("revoked")
    await stage.assignment.on_partitions_assigned(LOWER)
    await note("between")(None)
    await stage.assignment.on_partitions_revoked(LOWER)
    await note("after")(None)
    assert stage.looks == 1  # a poll that waited was told
    assert states == [("assigned", 2, 0), ("between", 2, 2), ("revoked", 2, 0), ("after", 0, 0)]


async def test_a_revoke_waits_for_commits_under_way(stage: Stage) -> None:
    await stage.assignment.on_partitions_assigned(LOWER)
    commit = stage.assignment.commit_begins()
    revoking = asyncio.create_task(stage.assignment.on_partitions_revoked(LOWER))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not revoking.done()
    assert not stage.assignment.held  # and no new one begins
    commit.set_result(None)
    async with asyncio.timeout(5):
        await revoking


async def test_a_commit_that_does_not_end_is_given_up(stage: Stage) -> None:
    stage.assignment = stage.make(0.0)
    await stage.assignment.on_partitions_assigned(LOWER)
    commit = stage.assignment.commit_begins()
    async with asyncio.timeout(5):
        await stage.assignment.on_partitions_revoked(LOWER)
    assert commit.cancelled()


async def test_a_faulty_listener_is_told_apart_and_the_group_goes_on(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: object) -> None:
        raise RuntimeError("our fault")

    stage.listener.assigned_hook = stage.listener.revoked_hook = fail
    await stage.assignment.on_partitions_assigned(LOWER)
    await stage.assignment.on_partitions_revoked(LOWER)
    assert [r.exc_info is not None for r in caplog.records] == [True, True]
    assert "our fault" in caplog.text
    assert not stage.assignment.held


async def test_a_closed_one_tells_nobody(stage: Stage) -> None:
    await stage.assignment.on_partitions_assigned(LOWER)
    stage.assignment.close()
    await stage.assignment.on_partitions_revoked(LOWER)
    await stage.assignment.on_partitions_assigned(LOWER)
    assert stage.listener.names() == ["assigned"]
    assert not stage.assignment.pollable


async def test_the_fetch_size_follows_the_assignment(stage: Stage) -> None:
    await stage.assignment.on_partitions_assigned(LOWER)
    assert stage.fetcher._max_partition_fetch_bytes == 512 * 1024


@pytest.mark.parametrize("partitions", [1, 2, 7, 64, 200, 4096])
def test_all_partitions_together_stay_within_the_budget(partitions: int) -> None:
    budget = 64 * 1024 * 1024
    assert partitions * partition_fetch_bytes(budget, partitions) <= budget


def test_the_bounds_of_a_fetch() -> None:
    assert partition_fetch_bytes(1 << 30, 1) == 1 << 20
    assert partition_fetch_bytes(1 << 20, 10_000) == 16 * 1024
    assert partition_fetch_bytes(1 << 20, 0) == 1 << 20
