"""Lanes: reused, replaced when dirty, and never out of step with the queue."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

import pytest

from prosody.consume.lanes import _IDLE_MAX
from prosody.model.outcome import SUCCESS, Outcome
from tests.consume.fakes import Around, Stage, record, records
from tests.support import other_tasks, settle

if TYPE_CHECKING:
    from prosody.consume.partition import Partition
    from prosody.model.run import Run

variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable", default="clean")


class Uncomparable:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no answer")

    __hash__ = object.__hash__


async def handled(partition: Partition, *offsets: int) -> None:
    for offset in offsets:
        partition.receive(records(offset))
        await settle()


async def test_one_lane_handles_what_does_not_wait() -> None:
    lanes: set[object] = set()

    async def quick(_: Run) -> Outcome:
        lanes.add(asyncio.current_task())
        return SUCCESS

    partition = Around(quick, max_uncommitted=1000).partition()
    partition.receive([record(n, f"k{n % 7}".encode()) for n in range(500)])
    await settle()
    assert partition.to_commit() == 500
    assert len(lanes) <= 2
    await partition.drain(1.0, 2.0)


@pytest.mark.parametrize("trace", ["a new value", Uncomparable()], ids=["set", "uncomparable"])
async def test_context_variables_are_never_seen_by_the_next_run(trace: object) -> None:
    seen: list[object] = []

    async def handler(_: Run) -> Outcome:
        seen.append(variable.get())
        variable.set(trace)
        return SUCCESS

    partition = Around(handler).partition()
    partition.receive(records(0, 1, 2))
    await settle()
    await handled(partition, 3)
    assert seen == ["clean"] * 4
    assert len(partition._lanes._tasks) == 0
    await partition.drain(1.0, 2.0)


async def test_a_lane_with_a_cancellation_is_not_used_again() -> None:
    lanes: list[object] = []

    async def handler(_: Run) -> Outcome:
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        lanes.append(task)
        task.cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return SUCCESS
        raise AssertionError("not cancelled")

    partition = Around(handler).partition()
    partition.receive(records(0, 1, 2))
    await settle()
    assert len(set(lanes)) == 3
    await partition.drain(1.0, 2.0)


async def test_idle_lanes_are_limited_and_end_with_the_partition() -> None:
    stage = Stage()
    count = _IDLE_MAX + 30
    partition = Around(stage, max_uncommitted=count).partition()
    partition.receive([record(n, f"k{n}".encode()) for n in range(count)])
    await settle()
    assert len(stage.offsets) == count
    for offset in range(count):
        stage.end(offset)
    await settle()
    assert len(partition._lanes._tasks) == _IDLE_MAX
    await partition.drain(1.0, 2.0)
    await settle()
    assert partition._lanes._tasks == set()
    assert other_tasks() == set()


async def test_a_woken_lane_that_is_cancelled_passes_the_wake_on() -> None:
    stage = Stage()
    partition = Around(stage).partition()
    partition.receive(records(0))
    await settle()
    lane = stage.on_stage[0][0].task
    assert lane is not None
    stage.end(0)
    await settle()
    partition.receive(records(1))  # wakes the idle lane ...
    lane.cancel()  # ... which is cancelled before it runs
    await settle()
    assert stage.offsets == [1]
    stage.end(1)
    await settle()
    await partition.drain(1.0, 2.0)


async def test_an_idle_lane_that_is_cancelled_is_forgotten() -> None:
    stage = Stage()
    partition = Around(stage).partition()
    partition.receive(records(0))
    await settle()
    lane = stage.on_stage[0][0].task
    assert lane is not None
    stage.end(0)
    await settle()
    lane.cancel()
    await settle()
    assert partition._lanes._idle == []
    await handled(partition, 1)
    stage.end(1)
    await settle()
    await partition.drain(1.0, 2.0)


async def test_a_run_that_is_cancelled_from_outside_goes_on_in_another_lane() -> None:
    stage = Stage()
    around = Around(stage)
    partition = around.partition()
    partition.receive(records(0, 1))
    await settle()
    first = stage.on_stage[0][0].task
    assert first is not None
    first.cancel()
    await settle()
    assert stage.seen == [0, 0]
    assert stage.on_stage[0][0].task is not first
    stage.end(0)
    await settle()
    stage.end(1)
    await settle()
    assert (partition.to_commit(), around.faults) == (2, [])
    await partition.drain(1.0, 2.0)


async def test_the_end_of_the_loop_starts_nothing_new() -> None:
    stage = Stage()
    around = Around(stage)
    partition = around.partition()
    partition.receive([*records(0, 1, key=b"a"), *records(2, key=b"b")])
    await settle()
    around.torn_down = True
    for task in other_tasks():
        task.cancel()
    await settle()
    assert (stage.seen, other_tasks()) == ([0, 2], set())
    assert partition.to_commit() is None


async def test_lanes_give_the_loop_a_turn() -> None:
    turns = 0

    async def ticking() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    around = Around(Stage(), max_uncommitted=100)
    clock = 0.0

    async def slow(_: Run) -> Outcome:
        nonlocal clock
        clock += 0.003  # three milliseconds of work without a wait
        return SUCCESS

    object.__setattr__(around.shared.stack, "call", slow)
    around.runtime.monotonic = lambda: clock  # type: ignore[method-assign]
    partition = around.partition()
    other = asyncio.create_task(ticking())
    partition.receive(records(*range(100)))
    for _ in range(200):
        await asyncio.sleep(0)
    assert partition.to_commit() == 100
    assert turns >= 40
    other.cancel()
    await partition.drain(1.0, 2.0)
