"""Timeout: one sweep cancels what is past its deadline, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from prosody.middleware.timeout import Timeout
from prosody.model.context import Context
from prosody.model.outcome import SUCCESS, Outcome
from prosody.model.run import Run
from tests.middleware.fakes import in_lane, make_run
from tests.support import FakeRuntime, settle


async def handler(run: Run) -> Outcome:
    """Stands for Invoke around a handler that hangs."""
    run.handling = True
    run.context = Context(run)
    try:
        await asyncio.Event().wait()
    finally:
        run.handling = False
    return SUCCESS


def deadlines_watched(timeout: Timeout) -> int:
    return len(timeout._running)


async def test_each_run_has_its_own_deadline_and_one_timer_is_enough() -> None:
    timeout = Timeout(10.0, FakeRuntime())
    call = timeout.wrap(handler)
    loop = asyncio.get_running_loop()
    ended: dict[int, float] = {}
    lanes = []
    for number in range(4):
        lane = in_lane(call, make_run(number))
        lane.add_done_callback(lambda _, n=number: ended.setdefault(n, loop.time()))
        lanes.append(lane)
        await asyncio.sleep(2.0)
    await asyncio.wait(lanes)
    await settle()
    assert ended == pytest.approx({0: 10.0, 1: 12.0, 2: 14.0, 3: 16.0})
    assert all(lane.cancelled() for lane in lanes)
    assert deadlines_watched(timeout) == 0
    assert timeout._timer is None


async def test_a_run_that_ends_in_time_is_left_alone() -> None:
    timeout = Timeout(10.0, FakeRuntime())

    async def works(_: Run) -> Outcome:
        await asyncio.sleep(9.0)
        return SUCCESS

    run = make_run()
    assert await in_lane(timeout.wrap(works), run) is SUCCESS
    await asyncio.sleep(100.0)
    assert not run.cancelled
    assert timeout._timer is None


async def test_a_retried_run_gets_a_new_deadline_behind_the_others() -> None:
    timeout = Timeout(10.0, FakeRuntime())
    call = timeout.wrap(handler)
    loop = asyncio.get_running_loop()
    first = in_lane(call, make_run(0))
    await asyncio.sleep(4.0)
    second = in_lane(call, make_run(1))
    await asyncio.sleep(3.0)
    first.cancel()
    await settle()
    again = in_lane(call, make_run(0))
    await asyncio.wait([second])
    assert loop.time() == pytest.approx(14.0)
    await asyncio.wait([again])
    assert loop.time() == pytest.approx(17.0)


async def test_the_context_says_so_at_the_deadline(caplog: pytest.LogCaptureFixture) -> None:
    timeout = Timeout(10.0, FakeRuntime())
    run = make_run(5)
    lane = in_lane(timeout.wrap(handler), run)
    await settle()
    context = run.context
    assert context is not None
    assert not context.should_cancel()
    told = asyncio.create_task(context.on_cancel())
    await asyncio.wait([told])
    assert asyncio.get_running_loop().time() == pytest.approx(10.0)
    assert context.should_cancel()
    await asyncio.wait([lane])
    assert "timed out after 10 s" in caplog.text
    assert "offset 5" in caplog.text


async def test_close_watches_no_more() -> None:
    timeout = Timeout(10.0, FakeRuntime())
    run = make_run()
    lane = in_lane(timeout.wrap(handler), run)
    await settle()
    timeout.close()
    timeout.close()
    await asyncio.sleep(20.0)
    assert not run.cancelled
    lane.cancel()
    await settle()
    assert deadlines_watched(timeout) == 0
