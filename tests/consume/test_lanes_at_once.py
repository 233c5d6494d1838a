"""Records that came together: an idle lane begins with them here and now."""

from __future__ import annotations

import asyncio
import contextvars
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from prosody.model.outcome import SUCCESS, Outcome
from tests.consume.fakes import (
    Around,
    Stage,
    an_idle_lane,
    called_back,
    handled,
    lanes_of,
    record,
    records,
)
from tests.support import settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prosody.consume.partition import Partition
    from prosody.model.run import Run

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="clean")


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


# -- handlers that wait for nothing: the lane's task stays asleep ------------------------------------


def around_straight(handle: Callable[[Run], Awaitable[object] | None]) -> Around:
    """Runs go straight to ``handle``, which answers what it waits for, if it does."""

    def call(run: Run) -> Any:
        rest = handle(run)
        if rest is None:
            around.scheduler.ended(run, SUCCESS)
            return SUCCESS
        return waited(run, rest)

    async def waited(run: Run, rest: Awaitable[object]) -> Outcome:
        try:
            await rest
            return SUCCESS
        finally:
            around.scheduler.ended(run, None)

    around = Around(cast("Any", None))
    around.lanes._stack = replace(around.shared.stack, call=call)
    return around


async def received_at_once(partition: Partition, *offsets: int) -> None:
    """Records that come together, a key each, and whatever follows from them."""
    lanes = lanes_of(partition)

    def received() -> None:
        lanes.hold()
        partition.receive([record(offset, b"%d" % offset) for offset in offsets])
        lanes.begin()

    await called_back(received)
    await settle()


async def test_a_lane_serves_in_its_sleep() -> None:
    tasks: list[object] = []

    def quick(run: Run) -> None:
        assert asyncio.current_task() is run.task
        tasks.append(run.task)

    around = around_straight(quick)
    partition = around.partition()
    await handled(partition, 0)
    (idle,) = around.lanes._idle
    for offset in (1, 3):
        await received_at_once(partition, offset, offset + 1)
        assert around.lanes._idle == [idle]
        assert not idle.done()
        assert idle.lane.run is None, "it keeps alive what has ended"
    assert len(tasks) == 5
    assert len(set(tasks)) == 1
    assert partition.to_commit() == 5
    await partition.drain(1.0, 2.0)
    await settle()
    assert idle.done()


async def test_a_handler_that_waits_goes_on_in_the_lane_that_it_began_in() -> None:
    ends = [asyncio.get_running_loop().create_future() for _ in range(2)]
    log: list[tuple[str, int, object]] = []

    async def rest(run: Run, offset: int) -> None:
        await ends[offset - 1]
        assert asyncio.current_task() is run.task
        log.append(("waited", offset, run.task))

    def handle(run: Run) -> Awaitable[object] | None:
        offset = run.record.offset  # type: ignore[union-attr]  # no timer
        log.append(("began", offset, run.task))
        return rest(run, offset) if offset in (1, 2) else None

    around = around_straight(handle)
    partition = around.partition()
    await handled(partition, 0)
    await received_at_once(partition, 1, 2, 3)
    assert [(what, offset) for what, offset, _ in log] == [
        ("began", 0), ("began", 1), ("began", 2), ("began", 3),
    ]  # fmt: skip
    ends[1].set_result(None)
    await settle()
    assert partition.to_commit() == 1
    ends[0].set_result(None)
    await settle()
    assert partition.to_commit() == 4
    began = {offset: task for what, offset, task in log if what == "began"}
    assert {offset: task for what, offset, task in log if what == "waited"} == {
        1: began[1], 2: began[2],
    }  # fmt: skip
    await partition.drain(1.0, 2.0)


@pytest.mark.parametrize("waits", [False, True])
async def test_a_handler_that_cancels_its_task_in_the_lanes_sleep(waits: bool) -> None:
    """It strikes where the handler waits next, once, and not another run."""
    struck: list[object] = []

    async def rest(task: asyncio.Task[Any]) -> None:
        assert not struck, "before anything was waited for"
        try:
            await asyncio.sleep(10.0)
        except asyncio.CancelledError as error:
            struck.extend((*error.args, task.cancelling()))
            task.uncancel()

    def handle(run: Run) -> Awaitable[object] | None:
        if run.record.offset != 1:  # type: ignore[union-attr]  # no timer
            return None
        assert run.task is not None
        run.task.cancel("enough")
        return rest(run.task) if waits else None

    around = around_straight(handle)
    partition = around.partition()
    await handled(partition, 0)
    await received_at_once(partition, 1, 2)
    assert struck == (["enough", 1] if waits else [])
    assert partition.to_commit() == 3
    await received_at_once(partition, 3)
    assert partition.to_commit() == 4
    assert not around.faults
    await partition.drain(1.0, 2.0)


async def test_what_a_handler_leaves_in_a_sleeping_lane_is_seen_by_no_other() -> None:
    seen: list[str] = []

    def handle(run: Run) -> None:
        seen.append(variable.get())
        variable.set("left behind")

    partition = around_straight(handle).partition()
    await handled(partition, 0)
    await received_at_once(partition, 1, 2)
    await received_at_once(partition, 3)
    assert seen == ["clean"] * 4
    assert partition.to_commit() == 4
    assert variable.get() == "clean"
    await partition.drain(1.0, 2.0)


async def test_a_sleeping_lane_gives_the_loop_a_turn() -> None:
    loop: Any = asyncio.get_running_loop()
    others: list[int] = []

    def handle(run: Run) -> None:
        loop.call_soon(others.append, run.record.offset)  # type: ignore[union-attr]  # no timer
        loop._now += 0.004

    partition = around_straight(handle).partition()
    await handled(partition, 0)
    lanes, ran = lanes_of(partition), []

    def received() -> None:
        lanes.hold()
        partition.receive([record(offset, b"%d" % offset) for offset in range(1, 8)])
        lanes.begin()
        ran.append(others[1:])

    await called_back(received)
    await settle()
    assert ran == [[]]
    assert others == list(range(8))
    assert partition.to_commit() == 8
    await partition.drain(1.0, 2.0)


async def test_a_handler_that_blocks_the_loop_in_a_lanes_sleep_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop: Any = asyncio.get_running_loop()

    def handle(run: Run) -> None:
        run.attempt = 1
        loop._now += 7.0

    around = around_straight(handle)
    partition = around.partition()
    around.steps.expect(loop.time() + 100.0)
    await handled(partition, 0)
    assert not caplog.records
    around.steps.expect(loop.time())
    await received_at_once(partition, 1)
    (line,) = caplog.records
    assert "blocked the event loop for 7.0 s" in line.getMessage()
    await partition.drain(1.0, 2.0)


async def test_a_fault_in_the_stack_in_a_lanes_sleep() -> None:
    def handle(run: Run) -> None:
        if run.record.offset == 1:  # type: ignore[union-attr]  # no timer
            raise ValueError("a fault of ours")

    around = around_straight(handle)
    partition = around.partition()
    await handled(partition, 0)
    await received_at_once(partition, 1)
    (fault,) = around.faults
    assert str(fault) == "a fault of ours"
    assert partition.to_commit() == 1


async def test_a_fault_of_a_lane_in_its_sleep(caplog: pytest.LogCaptureFixture) -> None:
    """Others take what it leaves."""
    around = around_straight(lambda _: None)
    partition = around.partition()
    await handled(partition, 0)
    take = around.scheduler.take

    def failing() -> Any:
        around.scheduler.take = take  # type: ignore[method-assign]
        raise ValueError("a fault of ours")

    around.scheduler.take = failing  # type: ignore[method-assign]
    await received_at_once(partition, 1)
    (line,) = [r for r in caplog.records if r.levelname == "CRITICAL"]
    assert line.getMessage() == "internal fault in a lane; please report this"
    assert not around.lanes._tasks
    await received_at_once(partition, 2)
    assert partition.to_commit() == 3
    await partition.drain(1.0, 2.0)


async def test_lanes_that_are_closed_by_a_handler_end() -> None:
    def handle(run: Run) -> None:
        if run.record.offset == 1:  # type: ignore[union-attr]  # no timer
            around.lanes.close()

    around = around_straight(handle)
    partition = around.partition()
    await handled(partition, 0)
    await received_at_once(partition, 1)
    assert partition.to_commit() == 2
    assert not around.lanes._tasks
