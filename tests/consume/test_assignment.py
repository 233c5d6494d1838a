"""The assignment: partitions come, go, are lost, and start again after a fault of ours."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from prosody.broker.protocol import TopicPartition
from prosody.consume.assignment import Assignment
from prosody.errors import BrokerError
from tests.consume.fakes import Around, FakeConsumer, Stage, record, records
from tests.support import other_tasks, settle

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prosody.consume.committer import Committer
    from prosody.consume.partition import Partition
    from prosody.model.run import Run

A, B, C = (TopicPartition("orders", n) for n in range(3))


class FakeCommitter:
    def __init__(self) -> None:
        self.final: list[dict[TopicPartition, int | None]] = []

    async def commit_finally(self, partitions: Iterable[Partition], timeout_s: float) -> None:
        self.final.append({p.topic_partition: p.to_commit() for p in partitions})


class Scene:
    def __init__(self) -> None:
        self.stage = Stage()
        self.around = Around(self.stage)
        self.consumer = FakeConsumer()
        self.committer = FakeCommitter()
        self.assignment = Assignment(10.0)
        object.__setattr__(self.around.shared, "failed", self.assignment.restart)
        self.assignment.connect(
            self.around.shared, cast("Committer", self.committer), self.consumer.as_broker()
        )

    def get(self, tp: TopicPartition) -> Partition:
        partition = self.assignment.get(tp)
        assert partition is not None
        return partition


async def test_assigned_partitions_are_new_objects_with_rising_epochs() -> None:
    scene = Scene()
    await scene.assignment.on_assigned(frozenset({A, B}))
    assert [p.epoch for p in scene.assignment.partitions()] == [1, 2]
    assert (len(scene.assignment), scene.around.wants) == (2, 1)
    first = scene.get(A)
    await scene.assignment.on_revoked(frozenset({A}))
    assert scene.assignment.get(A) is None
    await scene.assignment.on_assigned(frozenset({A}))
    assert scene.get(A) is not first
    assert scene.get(A).epoch == 3
    await scene.assignment.close()


async def test_a_partition_assigned_again_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    await scene.assignment.on_assigned(frozenset({A}))
    kept = scene.get(A)
    await scene.assignment.on_assigned(frozenset({A, B}))
    assert scene.get(A) is kept
    assert "assigned again without a revoke" in caplog.text
    await scene.assignment.close()


async def test_a_revoke_drains_commits_and_forgets_only_what_it_names() -> None:
    scene = Scene()
    await scene.assignment.on_assigned(frozenset({A, B}))
    scene.get(A).receive(records(0, 1))
    scene.get(B).receive([record(0, partition=1)])
    await settle()
    revoke = asyncio.create_task(scene.assignment.on_revoked(frozenset({A, C})))
    await asyncio.sleep(3.0)
    assert len(scene.assignment) == 2
    scene.stage.end(0)
    await revoke
    assert scene.committer.final == [{A: 1}]
    assert [p.topic_partition for p in scene.assignment.partitions()] == [B]
    scene.stage.end(0)
    await scene.assignment.close()
    assert scene.committer.final[1:] == [{B: 1}]


async def test_partitions_drain_side_by_side_within_the_shutdown_timeout() -> None:
    scene = Scene()
    await scene.assignment.on_assigned(frozenset({A, B}))
    for tp in (A, B):
        scene.get(tp).receive(records(0))
    await settle()
    await scene.assignment.on_revoked(frozenset({A, B}))
    assert asyncio.get_running_loop().time() == pytest.approx(8.0)  # cancelled then, and ended
    await settle()
    assert scene.stage.offsets == []


async def test_lost_partitions_are_not_committed_or_waited_for() -> None:
    scene = Scene()
    await scene.assignment.on_assigned(frozenset({A}))
    partition = scene.get(A)
    partition.receive(records(0))
    await settle()
    await scene.assignment.on_lost(frozenset({A, B}))
    assert (len(scene.assignment), scene.committer.final, partition.closed) == (0, [], True)
    await settle()
    assert (scene.stage.offsets, asyncio.get_running_loop().time()) == ([], 0.0)


async def test_nothing_is_taken_on_after_close() -> None:
    scene = Scene()
    await scene.assignment.on_assigned(frozenset({A}))
    await scene.assignment.close()
    await scene.assignment.on_assigned(frozenset({B}))
    assert len(scene.assignment) == 0


async def faulty(scene: Scene) -> Partition:
    """Partition A with 0 finished, 1 met by a fault, 2 behind it and 3 of another key running."""
    await scene.assignment.on_assigned(frozenset({A}))
    partition = scene.get(A)
    partition.receive([*records(0, 1, 2), record(3, b"other")])
    await settle()
    scene.stage.end(0)
    await settle()
    partition.committed = 1
    scene.stage.end(1, ZeroDivisionError("a bug"))
    await settle()
    return partition


async def test_a_fault_restarts_the_partition_from_its_committable_offset(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    broken = await faulty(scene)
    assert "internal fault" in caplog.text
    assert scene.get(A) is broken
    await asyncio.sleep(5.0)
    assert scene.consumer.seeks == [(A, 1)]
    fresh = scene.get(A)
    assert fresh is not broken
    assert (fresh.running, fresh.committed, fresh.to_commit()) == (True, 1, None)
    fresh.receive([*records(1, 2), record(3, b"other")])
    await settle()
    assert scene.stage.seen == [0, 3, 1, 1, 3]
    for offset in (1, 3):
        scene.stage.end(offset)
    await settle()
    scene.stage.end(2)
    await settle()
    assert fresh.to_commit() == 4
    await scene.assignment.close()


async def test_a_restart_waits_for_handlers_that_do_not_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    leave = asyncio.Event()

    async def handler(run: Run) -> None:
        if run.record.offset == 1:
            await leave.wait()
        await asyncio.sleep(0.1)
        raise ZeroDivisionError("a bug")

    object.__setattr__(scene.around.shared.stack, "call", handler)
    await scene.assignment.on_assigned(frozenset({A}))
    partition = scene.get(A)
    partition.receive([record(0, b"a"), record(1, b"b")])
    await asyncio.sleep(100.0)  # it cannot be cancelled: it never said that it handles
    assert scene.consumer.seeks == []
    assert "waits for handlers that do not end" in caplog.text
    leave.set()
    await asyncio.sleep(2.0)
    assert scene.consumer.seeks == [(A, 0)]
    await scene.assignment.close()


async def test_a_restart_gives_way_to_a_revoke() -> None:
    scene = Scene()
    await faulty(scene)
    await scene.assignment.on_revoked(frozenset({A}))
    await asyncio.sleep(5.0)
    assert (len(scene.assignment), scene.consumer.seeks) == (0, [])
    assert scene.committer.final == [{A: None}]


async def test_a_restart_ends_with_the_subscription() -> None:
    scene = Scene()
    await faulty(scene)
    await scene.assignment.close()
    await settle()
    assert other_tasks() == set()
    assert scene.consumer.seeks == []


async def test_a_restart_of_what_the_broker_took_away_is_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    broken = await faulty(scene)
    scene.consumer.errors = [BrokerError("not assigned", retriable=False)]
    await asyncio.sleep(5.0)
    assert scene.get(A) is broken
    assert "not restarted, topic 'orders' partition 0 is no longer assigned" in caplog.text
    await scene.assignment.close()
