"""Records that came together: an idle lane begins with them here and now."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from prosody.model.outcome import SUCCESS, Outcome
from tests.consume.fakes import Around, Stage, an_idle_lane, handled, lanes_of, record, records
from tests.support import settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from prosody.model.run import Run


async def called_back(call: Callable[[], object]) -> None:
    """Where no task runs, as what a socket received does."""
    done = asyncio.get_running_loop().create_future()

    def noted() -> None:
        try:
            done.set_result(call())
        except BaseException as error:
            done.set_exception(error)

    asyncio.get_running_loop().call_soon(noted)
    await done


async def test_an_idle_lane_begins_in_the_turn_in_which_all_is_taken() -> None:
    seen: list[int] = []

    async def quick(run: Run) -> Outcome:
        assert asyncio.current_task() is run.task
        seen.append(run.record.offset)  # type: ignore[union-attr]  # no timer
        return SUCCESS

    partition = Around(quick).partition()
    await handled(partition, 0)
    lanes = lanes_of(partition)

    def received() -> None:
        lanes.hold()
        partition.receive(records(1, 2))
        assert seen == [0], "before all is taken"
        lanes.begin()
        assert seen == [0, 1, 2]
        partition.receive(records(3))
        assert seen == [0, 1, 2], "what comes by itself waits for a turn of the loop"

    await called_back(received)
    await settle()
    assert seen == [0, 1, 2, 3]
    await partition.drain(1.0, 2.0)


async def test_a_lane_that_begins_at_once_waits_like_any_other() -> None:
    stage = Stage()
    partition = Around(stage).partition()
    await an_idle_lane(stage, partition)
    lanes = lanes_of(partition)

    def received() -> None:
        lanes.hold()
        partition.receive([record(1, b"a"), record(2, b"b")])
        lanes.begin()
        assert stage.seen == [0, 1], "another lane takes the next one, in the next turn"

    await called_back(received)
    await settle()
    assert stage.offsets == [1, 2]
    stage.end(1)
    stage.end(2)
    await settle()
    assert partition.to_commit() == 3
    await partition.drain(1.0, 2.0)


async def test_where_a_task_runs_the_lane_begins_in_the_next_turn() -> None:
    stage = Stage()
    partition = Around(stage).partition()
    await an_idle_lane(stage, partition)
    lanes = lanes_of(partition)
    lanes.hold()
    partition.receive(records(1))
    lanes.begin()
    assert stage.seen == [0]
    await settle()
    assert stage.seen == [0, 1]
    stage.end(1)
    await settle()
    await partition.drain(1.0, 2.0)


@pytest.mark.parametrize("idle", [True, False])
async def test_nothing_to_begin_with(idle: bool) -> None:
    """Nothing came that waits, or no lane is idle."""
    stage = Stage()
    partition = Around(stage).partition()
    lanes = lanes_of(partition)
    if idle:
        await an_idle_lane(stage, partition)

    def received() -> None:
        lanes.hold()
        lanes.begin()
        lanes.hold()
        if not idle:
            partition.receive(records(0))
        lanes.begin()

    await called_back(received)
    await settle()
    partition.receive(records(1))
    await settle()
    if not idle:
        assert stage.seen == [0]
        stage.end(0)
        await settle()
    assert stage.seen == [0, 1]
    stage.end(1)
    await settle()
    await partition.drain(1.0, 2.0)


async def test_a_lane_that_is_cancelled_before_it_begins_passes_that_on() -> None:
    stage = Stage()
    partition = Around(stage).partition()
    lane = await an_idle_lane(stage, partition)
    lanes = lanes_of(partition)

    def received() -> None:
        lanes.hold()
        partition.receive(records(1))
        lane.cancel()
        lanes.begin()

    await called_back(received)
    await settle()
    assert stage.offsets == [1]
    assert stage.on_stage[0][0].task is not lane
    stage.end(1)
    await settle()
    await partition.drain(1.0, 2.0)
