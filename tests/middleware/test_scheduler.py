"""The scheduler: never more than the limit, who is next, what is charged, and that no permit is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from prosody._core import TimeWindow
from prosody.config.options_qos import SchedulerOptions
from prosody.middleware.scheduler import Scheduler
from prosody.model.outcome import ABANDONED, SUCCESS
from prosody.model.run import WorkClass
from tests.middleware import fakes
from tests.middleware.fakes import FakePartition, Gate, in_lane
from tests.support import FakeRuntime, settle

if TYPE_CHECKING:
    from prosody.model.run import Run


def alone(limit: int, meter: Any = None, **options: Any) -> Scheduler:
    """A scheduler without lanes."""
    return Scheduler(limit, SchedulerOptions(**options), FakeRuntime(), meter)


def scheduler_of(limit: int, meter: Any = None) -> Scheduler:
    """A scheduler with lanes that look; all that waits has a lane of its own."""
    scheduler = alone(limit, meter)

    def look() -> None:
        assert scheduler.take() is None

    scheduler.wake = look
    return scheduler


def make_run(number: int = 0, partition: FakePartition | None = None) -> Run:
    """Each of a key of its own."""
    return fakes.make_run(number, partition, key=f"key {number}")


def fresh(number: int, key: str = "", work_class: WorkClass = WorkClass.NORMAL) -> Run:
    """One that no lane has yet."""
    run = fakes.make_run(number, key=key or f"key {number}")
    run.task = None
    run.work_class = work_class
    return run


async def test_no_more_than_the_limit_and_in_order() -> None:
    scheduler, gate = scheduler_of(2), Gate()
    call = scheduler.wrap(gate)
    lanes = [in_lane(call, make_run(n)) for n in range(4)]
    await settle()
    assert (gate.offsets, scheduler.in_use, scheduler.waiting) == ([0, 1], 2, 2)
    gate.let_out()
    await settle()
    assert (gate.offsets, scheduler.in_use, scheduler.waiting) == ([1, 2], 2, 1)
    for _ in range(3):
        gate.let_out()
        await settle()
    assert [await lane for lane in lanes] == [SUCCESS] * 4
    assert (scheduler.in_use, scheduler.waiting) == (0, 0)


async def test_a_permit_comes_back_when_the_inner_call_fails() -> None:
    scheduler = scheduler_of(1)

    async def fails(_: object) -> None:
        raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await scheduler.wrap(fails)(make_run())  # type: ignore[arg-type]
    assert scheduler.in_use == 0


async def test_an_interrupted_wait_is_abandoned_and_takes_nothing() -> None:
    scheduler, gate = scheduler_of(1), Gate()
    call = scheduler.wrap(gate)
    first, second = make_run(0), make_run(1)
    lanes = [in_lane(call, first), in_lane(call, second)]
    await settle()
    second.interrupt()
    assert await lanes[1] is ABANDONED
    assert second.interruptible is None
    gate.let_out()
    await lanes[0]
    assert (scheduler.in_use, scheduler.waiting) == (0, 0)


async def test_a_cancelled_wait_leaves_the_queue() -> None:
    scheduler, gate = scheduler_of(1), Gate()
    call = scheduler.wrap(gate)
    lanes = [in_lane(call, make_run(n)) for n in range(3)]
    await settle()
    lanes[1].cancel()
    await settle()
    gate.let_out()
    await settle()
    assert gate.offsets == [2]
    gate.let_out()
    await settle()
    assert lanes[1].cancelled()
    assert scheduler.in_use == 0


async def test_a_permit_granted_in_the_turn_of_the_cancellation_is_passed_on() -> None:
    scheduler, gate = scheduler_of(1), Gate()
    call = scheduler.wrap(gate)
    runs = [make_run(n) for n in range(3)]
    lanes = [in_lane(call, run) for run in runs]
    await settle()
    granted = runs[1].interruptible
    assert granted is not None
    granted.add_done_callback(lambda _: lanes[1].cancel())  # after the grant, before the lane runs
    gate.let_out()
    await settle()
    assert lanes[1].cancelled()
    assert gate.offsets == [2]
    gate.let_out()
    await settle()
    assert scheduler.in_use == 0


async def test_a_permit_granted_in_the_turn_of_a_revoke_starts_nothing() -> None:
    scheduler, gate = scheduler_of(1), Gate()
    call = scheduler.wrap(gate)
    given_up = FakePartition()
    lanes = [
        in_lane(call, make_run(0)),
        in_lane(call, make_run(1, given_up)),
        in_lane(call, make_run(2)),
    ]
    await settle()
    gate.let_out()
    await asyncio.sleep(0)  # the first lane ends and grants its permit to the second ...
    given_up.running = False  # ... whose partition goes before it runs
    await settle()
    assert await lanes[1] is ABANDONED
    assert gate.offsets == [2]
    gate.let_out()
    await settle()
    assert scheduler.in_use == 0


async def test_a_fresh_run_is_taken_with_its_permit() -> None:
    scheduler, gate = alone(1), Gate()
    woken = []
    scheduler.wake = lambda: woken.append(1)
    first, second = fresh(0), fresh(1)
    scheduler.enqueue(first, 0.0)
    scheduler.enqueue(second, 0.0)
    assert (len(woken), scheduler.waiting, scheduler.has_more) == (2, 2, True)
    assert scheduler.take() is first
    assert first.permit
    assert scheduler.take() is None, "there is no other permit"
    assert not scheduler.has_more
    lane = in_lane(scheduler.wrap(gate), first)
    await settle()
    assert (gate.offsets, scheduler.in_use, scheduler.waiting) == ([0], 1, 1)
    gate.let_out()
    await lane
    assert (first.permit, scheduler.in_use) == (False, 0)
    assert scheduler.take() is second
    scheduler.give_back(second)
    assert (scheduler.in_use, scheduler.waiting, scheduler.heap.dispatched) == (0, 0, 0)


async def test_what_waits_without_a_lane_can_be_withdrawn() -> None:
    scheduler = alone(1)
    first, second = fresh(0), fresh(1)
    for run in (first, second):
        scheduler.enqueue(run, 0.0)
    scheduler.give_back(first)
    assert scheduler.take() is second
    scheduler.give_back(second)
    assert scheduler.take() is None


async def test_a_permit_that_comes_back_while_others_wait_has_a_lane_look() -> None:
    """The lane of the run that ended may go on to wait for something else."""
    scheduler, gate = alone(1), Gate()
    lane = in_lane(scheduler.wrap(gate), make_run(0))
    await settle()
    scheduler.enqueue(fresh(1), 0.0)
    woken = []
    scheduler.wake = lambda: woken.append(scheduler.take())
    gate.let_out()
    await lane
    await settle()
    assert len(woken) == 1
    assert woken[0] is not None
    scheduler.give_back(woken[0])


async def test_a_lane_that_took_it_in_the_meantime_spares_the_look() -> None:
    scheduler, gate = alone(1), Gate()
    second = fresh(1)

    async def lane(run: Run) -> None:
        await scheduler.wrap(gate)(run)
        assert scheduler.take() is second

    first = in_lane(lane, make_run(0))
    await settle()
    scheduler.enqueue(second, 0.0)
    woken: list[int] = []
    scheduler.wake = lambda: woken.append(1)
    gate.let_out()
    await first
    await settle()
    assert woken == []
    scheduler.give_back(second)


async def run_for(scheduler: Scheduler, run: Run, seconds: float) -> None:
    async def handler(_: Run) -> Any:
        await asyncio.sleep(seconds)
        return SUCCESS

    await in_lane(scheduler.wrap(handler), run)


async def test_a_run_is_charged_to_its_key_before_the_key_can_come_again() -> None:
    scheduler = alone(1)
    await run_for(scheduler, fakes.make_run(0, key="busy"), 5.0)
    now = asyncio.get_running_loop().time()
    assert scheduler.heap.virtual_time((1, "busy"), now) == pytest.approx(5.0)
    late, busy = fresh(2, "other"), fresh(1, "busy")
    scheduler.enqueue(busy, now)
    scheduler.enqueue(late, now)
    assert scheduler.take() is late
    scheduler.give_back(late)
    assert scheduler.take() is busy
    scheduler.give_back(busy)


async def test_keys_of_different_partitions_are_different_keys() -> None:
    scheduler = alone(1)
    await run_for(scheduler, fakes.make_run(0, key="busy"), 5.0)
    elsewhere = FakePartition()
    elsewhere.number = 2
    now = asyncio.get_running_loop().time()
    busy = fresh(1, "busy")
    other = fakes.make_run(2, elsewhere, key="busy")
    other.task = None
    scheduler.enqueue(busy, now)
    scheduler.enqueue(other, now)
    assert scheduler.take() is other
    scheduler.give_back(other)
    scheduler.give_back(busy)


async def test_each_class_gets_its_share() -> None:
    scheduler = alone(1)
    used = {WorkClass.NORMAL: 0, WorkClass.FAILURE: 0}
    for number in range(1_000):
        for work_class in WorkClass:
            scheduler.enqueue(fresh(number, f"{work_class} {number}", work_class), 0.0)
        run = scheduler.take()
        assert run is not None
        await run_for(scheduler, run, 0.01)
        used[run.work_class] += 1
    share = used[WorkClass.NORMAL] / sum(used.values())
    assert share == pytest.approx(0.7, abs=0.02)


async def test_the_options_reach_the_heap() -> None:
    """A class of weight 0 is served only when the other is empty."""
    scheduler = alone(1, scheduler_failure_weight=0.0)
    for number in range(5):
        scheduler.enqueue(fresh(number, f"failing {number}", WorkClass.FAILURE), 0.0)
        scheduler.enqueue(fresh(number, f"normal {number}"), 0.0)
    served = []
    while (run := scheduler.take()) is not None:
        await run_for(scheduler, run, 1.0)
        served.append(run.work_class)
    assert served == [WorkClass.NORMAL] * 5 + [WorkClass.FAILURE] * 5


async def test_the_meter_counts_from_the_permit_to_the_end() -> None:
    meter = TimeWindow(100.0, 10)
    scheduler, gate = scheduler_of(1, meter), Gate()
    call = scheduler.wrap(gate)
    first, second = make_run(0), make_run(1)
    lanes = [in_lane(call, first), in_lane(call, second)]
    await asyncio.sleep(5.0)
    gate.let_out()
    await asyncio.sleep(3.0)
    now = asyncio.get_running_loop().time()
    assert meter.used(first.place, now) == pytest.approx(5.0, abs=1.0)
    assert meter.used(second.place, now) == pytest.approx(3.0, abs=1.0), "waiting counts nothing"
    gate.let_out()
    await asyncio.wait(lanes)
    assert meter.used(second.place, now + 50.0) == pytest.approx(3.0, abs=1.0)


async def test_who_waits_for_a_permit() -> None:
    scheduler, gate = alone(1), Gate()
    scheduler.wake = lambda: None if waiting in taken else taken.append(scheduler.take())
    taken: list[Run | None] = []
    runs = [make_run(n) for n in range(2)]
    lanes = [in_lane(scheduler.wrap(gate), run) for run in runs]
    await settle()
    waiting = fresh(2)
    scheduler.enqueue(waiting, 0.0)
    found = [scheduler.awaited_by(run) for run in (*runs, waiting, fresh(3))]
    assert found == [False, True, True, False]
    for _ in range(2):
        gate.let_out()
        await settle()
    await asyncio.wait(lanes)
    await settle()
    assert taken[-1] is waiting
    assert not any(scheduler.awaited_by(run) for run in (*runs, waiting))
    scheduler.give_back(waiting)
