"""Permits: never more than the limit, first come first served, none lost."""

from __future__ import annotations

import asyncio

import pytest

from prosody.middleware.permits import Permits
from prosody.model.outcome import ABANDONED, SUCCESS
from tests.middleware.fakes import FakePartition, Gate, in_lane, make_run
from tests.support import settle


async def test_no_more_than_the_limit_and_in_order() -> None:
    permits, gate = Permits(2), Gate()
    call = permits.wrap(gate)
    lanes = [in_lane(call, make_run(n)) for n in range(4)]
    await settle()
    assert (gate.offsets, permits.in_use, permits.waiting) == ([0, 1], 2, 2)
    gate.let_out()
    await settle()
    assert (gate.offsets, permits.in_use, permits.waiting) == ([1, 2], 2, 1)
    for _ in range(3):
        gate.let_out()
        await settle()
    assert [await lane for lane in lanes] == [SUCCESS] * 4
    assert (permits.in_use, permits.waiting) == (0, 0)


async def test_a_permit_comes_back_when_the_inner_call_fails() -> None:
    permits = Permits(1)

    async def fails(_: object) -> None:
        raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await permits.wrap(fails)(make_run())  # type: ignore[arg-type]
    assert permits.in_use == 0


async def test_an_interrupted_wait_is_abandoned_and_takes_nothing() -> None:
    permits, gate = Permits(1), Gate()
    call = permits.wrap(gate)
    first, second = make_run(0), make_run(1)
    lanes = [in_lane(call, first), in_lane(call, second)]
    await settle()
    second.interrupt()
    assert await lanes[1] is ABANDONED
    assert second.interruptible is None
    gate.let_out()
    await lanes[0]
    assert (permits.in_use, permits.waiting) == (0, 0)


async def test_a_cancelled_wait_leaves_the_queue() -> None:
    permits, gate = Permits(1), Gate()
    call = permits.wrap(gate)
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
    assert permits.in_use == 0


async def test_a_permit_granted_in_the_turn_of_the_cancellation_is_passed_on() -> None:
    permits, gate = Permits(1), Gate()
    call = permits.wrap(gate)
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
    assert permits.in_use == 0


async def test_a_permit_granted_in_the_turn_of_a_revoke_starts_nothing() -> None:
    permits, gate = Permits(1), Gate()
    call = permits.wrap(gate)
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
    assert permits.in_use == 0


async def test_a_partition_is_told_how_many_of_its_lanes_wait() -> None:
    permits, gate = Permits(1), Gate()
    call = permits.wrap(gate)
    partition = FakePartition()
    lanes = [in_lane(call, make_run(n, partition)) for n in range(3)]
    await settle()
    assert partition.permit_waits == 2
    lanes[2].cancel()
    await settle()
    assert (partition.permit_waits, partition.lanes_woken) == (1, 1)
    gate.let_out()
    await settle()
    assert (partition.permit_waits, partition.lanes_woken) == (0, 2)
    gate.let_out()
    await settle()
