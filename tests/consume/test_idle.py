"""What an idle lane waits for, apart from lanes: a future like any other, and one step taken at once."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any, cast

import pytest

from prosody.consume.idle import Idle
from prosody.consume.steps import Measured, Steps
from tests.consume.fakes import called_back
from tests.support import FakeRuntime

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


class Waiter:
    """A task that waits for an ``Idle`` and notes where it went on."""

    def __init__(self, kind: Any) -> None:
        lane = Measured(Steps(cast("Any", None), 10.0, FakeRuntime()))
        self.idle = Idle(lane, asyncio.get_running_loop())
        self.log: list[Any] = []
        self.task = lane.task = kind(self._wait(), loop=asyncio.get_running_loop())

    async def _wait(self) -> str:
        variable.set("the task's own")
        try:
            await self.idle
            self.log.append((variable.get(), asyncio.current_task() is self.task))
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise
        return "done"


# Tasks in C, and those of a Python without them.
KINDS = {"c": asyncio.Task, "python": asyncio.tasks._PyTask}  # type: ignore[attr-defined]


@pytest.fixture(params=KINDS)
async def waiter(request: pytest.FixtureRequest) -> Waiter:
    found = Waiter(KINDS[request.param])
    await asyncio.sleep(0)
    return found


WENT_ON = [("the task's own", True)]


async def test_a_result_wakes_the_task_in_the_next_turn(waiter: Waiter) -> None:
    waiter.idle.set_result(None)
    assert not waiter.log
    assert await waiter.task == "done"
    assert waiter.log == WENT_ON


async def test_the_next_step_is_taken_at_once(waiter: Waiter) -> None:
    logs: list[list[Any]] = []

    def call() -> None:
        waiter.idle.begin()
        logs.append(list(waiter.log))

    asyncio.get_running_loop().call_soon(call)
    assert await waiter.task == "done"
    assert logs == [WENT_ON]
    assert waiter.log == WENT_ON, "the step was taken twice"
    assert asyncio.current_task() is not None


async def test_a_step_in_the_place_of_the_task(waiter: Waiter) -> None:
    def step(lane: Measured) -> str:
        waiter.log.append((variable.get(), asyncio.current_task() is waiter.task))
        assert lane is waiter.idle.lane
        return "left"

    assert await called_back(lambda: waiter.idle.within(step))
    assert waiter.idle.lane.rest == "left"
    assert waiter.log == WENT_ON
    assert not waiter.idle.done()
    waiter.log.clear()
    waiter.idle.set_result(None)
    assert await waiter.task == "done"
    assert waiter.log == WENT_ON


async def test_a_step_that_fails(waiter: Waiter) -> None:
    def step(_: Measured) -> None:
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        await called_back(lambda: waiter.idle.within(step))
    assert not waiter.idle.done()
    waiter.idle.set_exception(ValueError("another"))
    with pytest.raises(ValueError, match="another"):
        await waiter.task


async def test_a_step_that_cancels_the_task(waiter: Waiter) -> None:
    await called_back(lambda: waiter.idle.within(lambda _: waiter.task.cancel()))
    assert waiter.idle.lane.rest is True
    with pytest.raises(asyncio.CancelledError):
        await waiter.task
    assert waiter.log == ["cancelled"]


def never(_: Measured) -> None:
    raise AssertionError


async def test_where_a_task_runs_no_step_is_made_for_another(waiter: Waiter) -> None:
    assert not waiter.idle.within(never)
    assert asyncio.current_task() is not None
    waiter.idle.set_result(None)
    assert await waiter.task == "done"


async def test_before_the_task_waits_no_step_is_made_for_it() -> None:
    waiter = Waiter(asyncio.Task)
    assert not waiter.idle.within(never)
    waiter.idle.set_result(None)
    assert await waiter.task == "done"
    assert waiter.log == WENT_ON


@pytest.mark.parametrize("what", ["task", "idle"])
async def test_a_cancelled_wait(waiter: Waiter, what: str) -> None:
    assert getattr(waiter, what).cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter.task
    assert waiter.idle.cancelled()
    assert waiter.log == ["cancelled"]
    assert not waiter.idle.cancel()


async def test_others_may_wait_for_it_too(waiter: Waiter) -> None:
    async def other() -> None:
        await waiter.idle

    others = [asyncio.create_task(other()) for _ in range(2)]
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(waiter.idle.begin)
    async with asyncio.timeout(10.0):
        await asyncio.gather(waiter.task, *others)
