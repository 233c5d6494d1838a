"""What has ended while a store still writes about it: its key is free, its offset waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prosody.model.outcome import SUCCESS, Outcome
from tests.consume.fakes import Around, Stage, record, records
from tests.consume.test_assignment import A, Scene, starts
from tests.support import settle

if TYPE_CHECKING:
    from prosody.consume.partition import Partition
    from prosody.model.run import Run


class Behind(Stage):
    """A stack that leaves every run unwritten, until the test says otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[int, Run] = {}

    async def __call__(self, run: Run) -> Outcome:
        outcome = await super().__call__(run)
        assert run.record is not None
        self.runs[run.record.offset] = run
        run.unwritten = True
        return outcome

    def written(self, partition: Partition, offset: int) -> None:
        partition.written(self.runs[offset])


async def test_the_key_is_free_at_once_and_the_offset_done_when_it_is_written() -> None:
    stage = Behind()
    partition = Around(stage).partition()
    partition.receive(records(0, 1))
    await settle()
    stage.end(0)
    await settle()
    assert (stage.offsets, partition.uncommitted, partition.to_commit()) == ([1], 2, None)
    stage.written(partition, 0)
    assert (partition.uncommitted, partition.to_commit()) == (1, 1)
    stage.written(partition, 0)  # a second time it means nothing
    assert partition.uncommitted == 1
    stage.end(1)
    await settle()
    stage.written(partition, 1)
    await partition.drain(8.0, 10.0)
    assert partition.to_commit() == 2


async def test_what_is_written_before_the_run_has_ended_leaves_nothing() -> None:
    stage = Stage()
    partition = Around(stage).partition()
    partition.receive(records(0))
    await settle()
    run = stage.on_stage[0][0]
    run.unwritten = True
    partition.written(run)
    assert partition.uncommitted == 1
    stage.end(0)
    await settle()
    assert (partition.uncommitted, partition.to_commit()) == (0, 1)
    await partition.drain(8.0, 10.0)


async def test_it_takes_room_and_gives_it_back_with_others_at_once() -> None:
    stage = Behind()
    around = Around(stage, max_uncommitted=3)
    partition = around.partition()
    partition.receive([record(n, f"k{n}".encode()) for n in range(6)])
    await settle()
    for offset in range(3):
        stage.end(offset)
    await settle()
    assert (stage.offsets, partition.uncommitted) == ([], 3)
    for offset in range(3):
        stage.written(partition, offset)
    assert partition.uncommitted == 0, "admission comes once, at the next turn"
    await settle()
    assert (stage.offsets, partition.uncommitted, partition.wants_records) == ([3, 4, 5], 3, True)
    for offset in range(3, 6):
        stage.end(offset)
    await settle()
    for offset in range(3, 6):
        stage.written(partition, offset)
    await partition.drain(8.0, 10.0)


async def test_a_drain_waits_for_the_last_write() -> None:
    stage = Behind()
    partition = Around(stage).partition()
    partition.receive(records(0))
    await settle()
    stage.end(0)
    drain = asyncio.create_task(partition.drain(8.0, 10.0))
    await asyncio.sleep(9.0)
    assert not drain.done()
    stage.written(partition, 0)
    await drain
    assert (partition.closed, partition.to_commit()) == (True, 1)


async def test_a_write_that_does_not_end_holds_a_drain_up_within_its_limits_only() -> None:
    """The handler has ended well: it is not to run again because a store is slow."""
    stage = Behind()
    partition = Around(stage).partition()
    partition.receive(records(0, 1))
    await settle()
    stage.end(0)
    await settle()
    drain = asyncio.create_task(partition.drain(8.0, 10.0))
    await settle()
    stage.end(1, Outcome(SUCCESS.kind))
    await asyncio.sleep(9.9)
    assert (drain.done(), partition.to_commit()) == (False, None)
    await drain
    assert partition.loop.time() == 10.0
    assert (partition.uncommitted, partition.to_commit()) == (0, 2)
    await partition.wait_ended()
    stage.written(partition, 0)  # too late to matter
    await settle()
    assert partition.to_commit() == 2


async def test_a_lost_partition_waits_for_nothing_and_completes_nothing() -> None:
    stage = Behind()
    partition = Around(stage).partition()
    partition.receive(records(0))
    await settle()
    stage.end(0)
    drain = asyncio.create_task(partition.drain(8.0, 10.0))
    await settle()
    partition.lose()
    await drain
    assert partition.loop.time() == 0.0
    stage.written(partition, 0)
    await settle()
    assert partition.closed


async def test_a_revoke_commits_when_the_last_write_has_ended() -> None:
    scene = Scene()
    behind = Behind()
    object.__setattr__(scene.around.shared.stack, "call", scene.around.scheduler.wrap(behind))
    scene.assignment.on_assigned(starts(A))
    partition = scene.get(A)
    partition.receive(records(0))
    await settle()
    behind.end(0)
    await settle()
    revoke = asyncio.create_task(scene.assignment.on_revoked(frozenset({A})))
    await asyncio.sleep(3.0)
    assert (len(scene.assignment), scene.committer.final) == (1, [])
    behind.written(partition, 0)
    await revoke
    assert scene.committer.final == [{A: 1}]
    await scene.assignment.close()
    scene.around.lanes.close()
