"""Lanes: reused, replaced when dirty, and never out of step with the queue."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import weakref
from typing import TYPE_CHECKING

import pytest

from prosody.broker.protocol import TopicPartition
from prosody.consume.steps import Measured
from prosody.middleware.base import compose
from prosody.middleware.invoke import Invoke
from prosody.middleware.timeout import Timeout
from prosody.model.handler import HandlerMethods
from prosody.model.outcome import SUCCESS, Outcome
from tests.consume.fakes import Around, Stage, an_idle_lane, handled, lanes_of, record, records
from tests.support import other_tasks, settle

if TYPE_CHECKING:
    from prosody import Message
    from prosody.model.run import Run

variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable", default="clean")


class Uncomparable:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no answer")

    __hash__ = object.__hash__


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
    assert len(lanes_of(partition)._tasks) == 0
    await partition.drain(1.0, 2.0)


class Event:
    """What a handler was given."""


async def test_an_idle_lane_keeps_nothing_of_what_it_ran() -> None:
    stage = Stage()
    partition = Around(stage).partition()
    await handled(partition, 0)
    event = Event()
    stage.on_stage[0][0].event = event  # type: ignore[assignment]
    gone = weakref.ref(event)
    del event
    stage.end(0)
    await settle()
    gc.collect()
    assert gone() is None
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


async def test_idle_lanes_are_limited_and_end_when_they_are_closed() -> None:
    stage = Stage()
    count, idle = 50, 20
    partition = Around(stage, max_uncommitted=count, idle_max=idle).partition()
    partition.receive([record(n, f"k{n}".encode()) for n in range(count)])
    await settle()
    assert len(stage.offsets) == count
    for offset in range(count):
        stage.end(offset)
    await settle()
    assert len(lanes_of(partition)._tasks) == idle
    await partition.drain(1.0, 2.0)
    await settle()
    assert not lanes_of(partition)._tasks
    assert other_tasks() == set()


async def test_a_woken_lane_that_is_cancelled_passes_the_wake_on() -> None:
    stage = Stage()
    partition = Around(stage).partition()
    lane = await an_idle_lane(stage, partition)
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
    lane = await an_idle_lane(stage, partition)
    lane.cancel()
    await settle()
    assert lanes_of(partition)._idle == []
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

    object.__setattr__(around.shared.stack, "call", around.scheduler.wrap(slow))
    around.scheduler.monotonic = around.steps.monotonic = lambda: clock
    partition = around.partition()
    other = asyncio.create_task(ticking())
    partition.receive(records(*range(100)))
    for _ in range(200):
        await asyncio.sleep(0)
    assert partition.to_commit() == 100
    assert turns >= 40
    other.cancel()
    await partition.drain(1.0, 2.0)


class Blocking:
    """A handler that blocks the loop for as long as its message says."""

    def __init__(self, around: Around) -> None:
        self.blocked_s = 0.0
        clock = around.runtime.monotonic
        around.runtime.monotonic = lambda: clock() + self.blocked_s  # type: ignore[method-assign]
        around.steps.monotonic = around.scheduler.monotonic = around.runtime.monotonic
        timeout = Timeout(1.0, around.runtime, around.storms)
        invoke = Invoke(HandlerMethods(self), lambda: False)
        layers = [around.scheduler, timeout]
        object.__setattr__(around.shared.stack, "call", compose(layers, invoke.call))

    async def on_message(self, _: object, message: Message) -> None:
        before_s, after_s = message.payload["blocks"]
        self.blocked_s += before_s
        if after_s:
            await asyncio.sleep(0)
            self.blocked_s += after_s


@pytest.mark.parametrize("blocks", [[3, 0], [3, 0.1], [0.1, 3]], ids=str)
@pytest.mark.parametrize("at", [0, 5, 19])
async def test_the_handler_that_blocks_is_the_one_that_is_named(
    blocks: list[float], at: int, caplog: pytest.LogCaptureFixture
) -> None:
    around = Around(Stage(), max_uncommitted=100)
    Blocking(around)
    partition = around.partition()
    values = [blocks if offset == at else [0.0001, 0] for offset in range(20)]
    partition.receive(
        [
            record(offset, f"k{offset % 3}".encode(), json.dumps({"blocks": value}).encode())
            for offset, value in enumerate(values)
        ]
    )
    await settle()
    assert partition.tracker.committable == 20
    lines = [r.getMessage() for r in caplog.records]
    assert len(lines) == 1
    assert f"offset {at} key 'k{at % 3}'" in lines[0]
    assert "on_message blocked the event loop for 3.0 s" in lines[0]
    await partition.drain(1.0, 2.0)
    await asyncio.sleep(2.0)  # the deadlines' timer


async def test_an_idle_lane_holds_on_to_no_run() -> None:
    partition = Around(answers).partition()
    await handled(partition, 0)
    (lane,) = lanes_of(partition)._tasks
    measured = lane.get_coro()
    assert isinstance(measured, Measured)
    assert measured.run is None
    await partition.drain(1.0, 2.0)


async def answers(_: Run) -> Outcome:
    return SUCCESS


async def test_there_are_as_many_lanes_as_permits_however_many_keys_are_ready() -> None:
    stage = Stage()
    around = Around(stage, max_uncommitted=100, permits=3)
    partition = around.partition()
    partition.receive([record(n, f"k{n}".encode()) for n in range(100)])
    await settle()
    assert (stage.offsets, partition.waiting, len(around.lanes._tasks)) == ([0, 1, 2], 97, 3)
    stage.end(1)
    await settle()
    assert (stage.offsets, partition.waiting, len(around.lanes._tasks)) == ([0, 2, 3], 96, 3)
    drained = asyncio.create_task(partition.drain(1.0, 2.0))
    await settle()
    assert partition.waiting == around.scheduler.waiting == 0, "no more of them will be taken"
    for offset in stage.offsets:
        stage.end(offset)
    await drained
    assert partition.to_commit() == 4


async def test_lanes_serve_all_partitions() -> None:
    stage = Stage()
    around = Around(stage, permits=1)
    one, other = around.partition(), around.partition(TopicPartition("orders", 1), 2)
    one.receive(records(0, key=b"a"))
    other.receive([record(7, b"b", partition=1)])
    await settle()
    lane = stage.on_stage[0][0].task
    stage.end(0)
    await settle()
    assert stage.offsets == [7]
    assert stage.on_stage[0][0].task is lane
    stage.end(7)
    await settle()
    assert (one.to_commit(), other.to_commit()) == (1, 8)
    for partition in (one, other):
        await partition.drain(1.0, 2.0)


async def test_a_fault_outside_any_run_is_told(caplog: pytest.LogCaptureFixture) -> None:
    around = Around(answers)
    partition = around.partition()

    def broken(_: float) -> None:
        raise ZeroDivisionError("a bug")

    around.scheduler._pop = broken
    around.lanes.wake()
    await settle()
    assert "internal fault in a lane" in caplog.text
    await partition.drain(1.0, 2.0)


@pytest.mark.parametrize("idle_s", [0.3, 0.7, 1.0, 5.0], ids=str)
async def test_lanes_that_take_runs_are_watched_however_long_they_idled(idle_s: float) -> None:
    around = Around(Stage())
    loop = asyncio.get_running_loop()
    ended: list[float] = []

    class Hanging:
        async def on_message(self, *_: object) -> None:
            began = loop.time()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(loop.time() - began)

    invoke = Invoke(HandlerMethods(Hanging()), lambda: False)
    call = compose([around.scheduler, around.shared.stack.timeout], invoke.call)
    object.__setattr__(around.shared.stack, "call", call)
    partition = around.partition()
    for offset in range(4):
        partition.receive([record(offset, b"k")])
        await asyncio.sleep(1.0 + idle_s)
        assert ended == pytest.approx([1.0] * (offset + 1))
    await partition.drain(1.0, 2.0)
    await asyncio.sleep(2.0)
    timeout = around.shared.stack.timeout
    assert (timeout._timer, len(timeout._handling), len(timeout._cancelled)) == (None, 0, 0)


async def test_an_ended_lane_holds_on_to_no_run() -> None:
    """The sweep of the deadlines may have noted the lane."""
    partition = Around(answers, idle_max=0).partition()
    partition.receive(records(0))
    (lane,) = lanes_of(partition)._tasks.values()
    await settle()
    assert partition.tracker.committable == 1
    assert not lanes_of(partition)._tasks
    assert lane.run is None
    await partition.drain(1.0, 2.0)
