"""The assignment: partitions come, go, are lost, and start again after a fault of ours."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from prosody._core.offset_set import decode_finished
from prosody.broker.protocol import Start, TopicPartition
from prosody.consume.assignment import COMMIT_TIMEOUT_S, Assignment
from prosody.consume.progress import Reached
from prosody.errors import BrokerError
from tests.consume.fakes import Around, FakeConsumer, Stage, record, records
from tests.support import other_tasks, settle

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prosody.consume.committer import Committer
    from prosody.consume.partition import Partition
    from prosody.model.run import Run

A, B, C = (TopicPartition("orders", n) for n in range(3))


def starts(*partitions: TopicPartition) -> dict[TopicPartition, Start]:
    return {tp: Start(0) for tp in partitions}


class FakeCommitter:
    def __init__(self) -> None:
        self.final: list[dict[TopicPartition, int | None]] = []
        self.limits: list[float | None] = []
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.fault: Exception | None = None

    async def commit_finally(
        self, partitions: Iterable[Partition], timeout_s: float | None
    ) -> None:
        self.limits.append(timeout_s)
        await self.goes_on.wait()
        if self.fault is not None:
            raise self.fault
        self.final.append({p.topic_partition: p.to_commit() for p in partitions})


class Scene:
    def __init__(self) -> None:
        self.stage = Stage()
        self.around = Around(self.stage, idle_max=0)
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
    scene.assignment.on_assigned(starts(A, B))
    assert [p.epoch for p in scene.assignment.partitions()] == [1, 2]
    assert (len(scene.assignment), scene.around.wants) == (2, 1)
    first = scene.get(A)
    await scene.assignment.on_revoked(frozenset({A}))
    assert scene.assignment.get(A) is None
    scene.assignment.on_assigned(starts(A))
    assert scene.get(A) is not first
    assert scene.get(A).epoch == 3
    await scene.assignment.close()


async def test_a_partition_assigned_again_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.assignment.on_assigned(starts(A))
    kept = scene.get(A)
    scene.assignment.on_assigned(starts(A, B))
    assert scene.get(A) is kept
    assert "assigned again without a revoke" in caplog.text
    await scene.assignment.close()


async def test_a_revoke_drains_commits_and_forgets_only_what_it_names() -> None:
    scene = Scene()
    scene.assignment.on_assigned(starts(A, B))
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
    scene.assignment.on_assigned(starts(A, B))
    for tp in (A, B):
        scene.get(tp).receive(records(0))
    await settle()
    await scene.assignment.on_revoked(frozenset({A, B}))
    assert asyncio.get_running_loop().time() == pytest.approx(8.0)  # cancelled then, and ended
    await settle()
    assert scene.stage.offsets == []


async def test_revokes_run_beside_each_other_and_beside_assignments() -> None:
    scene = Scene()
    scene.assignment.on_assigned(starts(A, B))
    for number, tp in enumerate((A, B)):
        scene.get(tp).receive([record(0, partition=number)])
    await settle()
    first = asyncio.create_task(scene.assignment.on_revoked(frozenset({A})))
    await settle()
    scene.get(B).receive([record(1, b"other", partition=1)])
    await asyncio.sleep(1.0)
    second = asyncio.create_task(scene.assignment.on_revoked(frozenset({B})))
    scene.assignment.on_assigned(starts(C))
    await settle()
    assert len(scene.assignment) == 3  # what is being revoked is held: regular commits cover it
    scene.stage.end(0)  # of A
    await first
    assert scene.committer.final == [{A: 1}]
    assert scene.assignment.get(A) is None
    assert (scene.get(B).running, second.done()) == (False, False)
    assert scene.stage.seen == [0, 0, 1]
    for offset in (0, 1):
        scene.stage.end(offset)
    await second
    assert scene.committer.final[1:] == [{B: 2}]
    assert scene.committer.limits == [None, None]  # the broker says when it cannot wait
    assert [p.topic_partition for p in scene.assignment.partitions()] == [C]
    await scene.assignment.close()


async def test_a_partition_lost_while_it_is_revoked() -> None:
    scene = Scene()
    scene.assignment.on_assigned(starts(A))
    scene.get(A).receive(records(0))
    await settle()
    revoke = asyncio.create_task(scene.assignment.on_revoked(frozenset({A})))
    await asyncio.sleep(1.0)
    scene.assignment.on_lost(frozenset({A}))
    scene.assignment.on_assigned(starts(A))
    fresh = scene.get(A)
    await revoke
    assert asyncio.get_running_loop().time() == 1.0
    assert (scene.get(A), fresh.running) == (fresh, True)  # another assignment: not this revoke's
    assert scene.stage.offsets == []
    await scene.assignment.close()


@pytest.mark.parametrize("stage", ["draining", "committing"])
async def test_a_revoke_cut_short_gives_up_and_says_what_runs_again(
    stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene()
    scene.assignment.on_assigned({A: Start(4), B: Start(0)})
    partition = scene.get(A)
    partition.receive([record(4, b"a"), record(5, b"b")])
    await settle()
    scene.stage.end(4)
    scene.committer.goes_on.clear()
    revoke = asyncio.create_task(scene.assignment.on_revoked(frozenset({A, B})))
    await settle()
    if stage == "committing":
        scene.stage.end(5)
        await settle()
        assert scene.committer.limits == [None]
    revoke.cancel()
    with pytest.raises(asyncio.CancelledError):
        await revoke
    assert (len(scene.assignment), partition.closed, scene.committer.final) == (0, True, [])
    errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert len(errors) == 1
    assert "will run again: topic 'orders' partition 0 from offset 4" in errors[0]
    assert "partition 1" not in errors[0]
    await settle()
    assert (scene.stage.offsets, asyncio.get_running_loop().time()) == ([], 0.0)


async def test_a_fault_of_ours_in_a_revoke_does_not_keep_the_partitions(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    scene.assignment.on_assigned(starts(A))
    scene.committer.fault = ZeroDivisionError("a bug")
    await scene.assignment.on_revoked(frozenset({A}))
    assert len(scene.assignment) == 0
    assert "internal fault in a revoke" in caplog.text


async def test_a_close_says_first_that_the_member_is_leaving() -> None:
    scene = Scene()
    scene.assignment.on_assigned(starts(A))
    scene.get(A).receive(records(0))
    await settle()
    close = asyncio.create_task(scene.assignment.close())
    await settle()
    assert (scene.consumer.told, scene.committer.limits) == (["leaving"], [])
    scene.stage.end(0)
    await close
    assert scene.committer.limits == [COMMIT_TIMEOUT_S]


async def test_lost_partitions_are_not_committed_or_waited_for() -> None:
    scene = Scene()
    scene.assignment.on_assigned(starts(A))
    partition = scene.get(A)
    partition.receive(records(0))
    await settle()
    scene.assignment.on_lost(frozenset({A, B}))
    assert (len(scene.assignment), scene.committer.final, partition.closed) == (0, [], True)
    await settle()
    assert (scene.stage.offsets, asyncio.get_running_loop().time()) == ([], 0.0)


async def test_keys_stay_charged_over_assignments_unless_runs_were_left_behind() -> None:
    scene = Scene()
    scene.assignment.on_assigned(starts(A, B))
    kept, lost = scene.get(A).number, scene.get(B).number
    scene.get(B).receive([record(0, partition=1)])
    await settle()
    await scene.assignment.on_revoked(frozenset({A}))
    scene.assignment.on_lost(frozenset({B}))
    scene.assignment.on_assigned(starts(A, B))
    assert scene.get(A).number == kept
    assert scene.get(B).number not in (kept, lost)
    scene.get(B).receive([record(0, partition=1)])  # while the handler of the lost one still ends
    await settle()
    assert scene.stage.offsets == [0]
    scene.stage.end(0)
    await scene.assignment.close()


async def test_nothing_is_taken_on_after_close() -> None:
    scene = Scene()
    scene.assignment.on_assigned(starts(A))
    await scene.assignment.close()
    scene.assignment.on_assigned(starts(B))
    assert len(scene.assignment) == 0


async def faulty(scene: Scene) -> Partition:
    """Partition A with 0 finished, 1 met by a fault, 2 behind it and 3 of another key running."""
    scene.assignment.on_assigned(starts(A))
    partition = scene.get(A)
    partition.receive([*records(0, 1, 2), record(3, b"other")])
    await settle()
    scene.stage.end(0)
    await settle()
    partition.progress.committed = partition.progress.reached
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
    assert (fresh.running, fresh.progress.committed, fresh.to_commit()) == (
        True,
        Reached(1, 0),
        None,
    )
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


async def test_what_had_finished_ahead_of_a_fault_does_not_run_again() -> None:
    scene = Scene()
    scene.assignment.on_assigned(starts(A))
    scene.get(A).receive([record(n, f"k{n}".encode()) for n in range(4)])
    await settle()
    scene.stage.end(2)
    await settle()
    scene.stage.end(1, ZeroDivisionError("a bug"))
    await asyncio.sleep(20.0)
    fresh = scene.get(A)
    assert fresh.epoch == 2
    assert fresh.to_commit() == 0  # that 2 has finished is still to be committed
    assert decode_finished(fresh.progress.text(100), 0) == [(2, 3)]
    fresh.receive([record(n, f"k{n}".encode()) for n in range(4)])
    await settle()
    assert scene.stage.seen == [0, 1, 2, 3, 0, 1, 3]
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
    scene.assignment.on_assigned(starts(A))
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


async def test_what_is_being_revoked_does_not_start_again() -> None:
    scene = Scene()
    await faulty(scene)
    scene.committer.goes_on.clear()
    revoke = asyncio.create_task(scene.assignment.on_revoked(frozenset({A})))
    await asyncio.sleep(30.0)
    assert (revoke.done(), scene.consumer.seeks, scene.get(A).epoch) == (False, [], 1)
    scene.committer.goes_on.set()
    await revoke
    assert len(scene.assignment) == 0


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
