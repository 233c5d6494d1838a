"""Setting and cancelling timers, from outside and while they fire; what fails, and what is cancelled."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from prosody.errors import StoreDownError, StoreError
from tests.support import settle
from tests.timers.support import APP, MESSAGE, TRACE, Hook, Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from prosody.timers.due import DueTimer


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = await Stage().start()
    yield stage
    stage.state.on_call = stage.state.on_done = None
    stage.state.restore()
    await stage.stop()


def fail(text: str = "no") -> Any:
    raise StoreError(text, retriable=True)


async def firing(stage: Stage, key: str = "a", *times: int) -> DueTimer:
    """A timer of the key that is firing: the first of ``times``, at second 1 without any."""
    await stage.set(key, *(times or (1,)))
    before = len(stage.fired)
    await stage.until(max(stage.now, (times or (1,))[0]) + 0.1)
    timer = stage.fired[before]
    assert timer.begin()
    return timer


# Setting


async def test_a_timer_is_stored_when_the_call_returns(stage: Stage) -> None:
    await stage.set("a", 5)
    assert stage.stored() == [("a", 5)]
    await stage.set("a", 5_000_000)
    assert stage.stored() == [("a", 5), ("a", 5_000_000)]
    assert stage.timers.pending == 1, "the far one is only stored"


async def test_the_same_timer_again_is_no_second_one(stage: Stage) -> None:
    await stage.set("a", 5)
    await stage.timers.schedule("a", 1_700_000_005, APP, {"traceparent": "00-2"})
    await stage.set("a", 5, kind=MESSAGE)
    await stage.set("b", 5)
    assert await stage.times("a") == [5]
    await stage.handle_all(10)
    assert stage.seen == [("a", 5), ("b", 5), ("a", 5)]
    assert {t.kind: dict(t.trace) for t in stage.fired if t.key == "a"} == {
        APP: {"traceparent": "00-2"},
        MESSAGE: TRACE,
    }
    assert stage.stored() == []


async def test_times_are_those_of_a_key_and_kind_ascending(stage: Stage) -> None:
    await stage.set("a", 70, 9_000_000, 8)
    await stage.set("a", 9, kind=MESSAGE)
    await stage.set("b", 10)
    assert await stage.times("a") == [8, 70, 9_000_000]
    assert await stage.times("a", MESSAGE) == [9]
    assert await stage.times("c") == []


# Cancelling


async def test_a_cancelled_timer_does_not_fire(stage: Stage) -> None:
    await stage.set("a", 5, 6, 9_000)
    await stage.unset("a", 5)
    await stage.unset("a", 9_000)
    await stage.unset("never", 5)
    await stage.handle_all(10_000)
    assert stage.seen == [("a", 6)]


@pytest.mark.parametrize("how", ["unschedule", "clear", "replace"])
async def test_one_that_waits_behind_its_key_does_not_begin(stage: Stage, how: str) -> None:
    await stage.set("a", 1)
    await stage.until(2)
    assert stage.seen == [("a", 1)]
    if how == "unschedule":
        await stage.unset("a", 1)
    elif how == "clear":
        assert await stage.clear("a") == [1]
    else:
        assert await stage.replace("a", 50) == [1]
    assert not stage.fired[0].begin()
    await stage.until(40)
    assert len(stage.fired) == 1


async def test_one_that_was_cancelled_and_set_again_fires_once(stage: Stage) -> None:
    await stage.set("a", 1)
    await stage.until(2)
    await stage.unset("a", 1)
    await stage.set("a", 1)
    await settle()
    assert len(stage.fired) == 1, "its partition still has the one that was cancelled"
    assert not stage.fired[0].begin()
    await stage.handle_all(5)
    assert stage.seen == [("a", 1), ("a", 1)]
    assert stage.stored() == []


async def test_clear_removes_all_of_a_key_and_kind(stage: Stage) -> None:
    await stage.set("a", 5, 9, 7_000)
    await stage.set("a", 6, kind=MESSAGE)
    await stage.set("b", 6)
    assert await stage.clear("a") == [5, 9, 7_000]
    assert await stage.clear("a") == []
    await stage.handle_all(10_000)
    assert sorted(stage.seen) == [("a", 6), ("b", 6)]


async def test_replace_leaves_one(stage: Stage) -> None:
    await stage.set("a", 5, 9, 7_000)
    assert await stage.replace("a", 9) == [5, 7_000]
    assert await stage.replace("a", 20) == [9]
    assert await stage.times("a") == [20]
    await stage.handle_all(10_000)
    assert stage.seen == [("a", 20)]


# While it fires


async def test_set_again_while_it_fires_it_fires_once_more(stage: Stage) -> None:
    timer = await firing(stage)
    assert await stage.times("a") == []
    for _ in range(3):
        await stage.timers.schedule("a", timer.time, APP, {"traceparent": "00-3"})
    assert await stage.times("a") == [1]
    await settle()
    assert len(stage.fired) == 1, "not before the end"
    assert await timer.end()
    await settle()
    assert stage.seen == [("a", 1), ("a", 1)]
    assert stage.stored() == [("a", 1)]
    again = stage.fired[1]
    assert again.trace == {"traceparent": "00-3"}
    assert again.begin()
    assert await again.end()
    await stage.until(100)
    assert len(stage.fired) == 2
    assert stage.stored() == []


async def test_that_it_fires_again_can_be_taken_back(stage: Stage) -> None:
    timer = await firing(stage)
    await stage.set("a", 1)
    await stage.unset("a", 1)
    assert await stage.times("a") == []
    assert await timer.end()
    await stage.until(100)
    assert len(stage.fired) == 1
    assert stage.stored() == []


async def test_to_cancel_the_one_that_fires_changes_nothing(stage: Stage) -> None:
    timer = await firing(stage)
    await stage.unset("a", 1)
    assert await stage.clear("a") == []
    assert stage.stored() == [("a", 1)], "a next owner would run it again"
    assert await timer.end()
    assert stage.stored() == []


async def test_clear_leaves_the_one_that_fires(stage: Stage) -> None:
    timer = await firing(stage, "a", 1, 1, 30, 9_000)
    await stage.set("a", 1)
    assert await stage.clear("a") == [1, 30, 9_000]
    assert stage.stored() == [("a", 1)]
    assert await stage.times("a") == []
    assert await timer.end()
    await stage.handle_all(10_000)
    assert stage.seen == [("a", 1)]


async def test_replace_from_the_one_that_fires_by_another_time(stage: Stage) -> None:
    timer = await firing(stage, "a", 1, 30, 9_000)
    await stage.set("a", 1)
    assert await stage.replace("a", 50) == [1, 30, 9_000]
    assert await stage.times("a") == [50]
    assert stage.stored() == [("a", 1), ("a", 50)], "what fires is there until it has ended"
    assert await timer.end()
    await stage.handle_all(10_000)
    assert stage.seen == [("a", 1), ("a", 50)]


async def test_replace_from_the_one_that_fires_by_itself(stage: Stage) -> None:
    timer = await firing(stage, "a", 1, 30, 9_000)
    assert await stage.replace("a", 1) == [30, 9_000]
    assert await stage.times("a") == [1]
    assert await timer.end()
    await stage.handle_all(10_000)
    assert stage.seen == [("a", 1), ("a", 1)]


@pytest.mark.parametrize("calls", range(6))
@pytest.mark.parametrize("while_firing", [False, True])
async def test_what_replaces_is_durable_before_anything_goes(
    stage: Stage, while_firing: bool, calls: int
) -> None:
    await stage.set("a", 30, 40)
    if while_firing:
        await firing(stage)
    before = stage.stored()
    left = iter(range(calls))

    def fails_after_some(_: str) -> None:
        if next(left, None) is None:
            fail()

    stage.state.on_call = fails_after_some
    try:
        await stage.replace("a", 50)
    except StoreError:
        assert ("a", 50) in stage.stored() or stage.stored() == before
    else:
        assert calls > 0


# Order


async def test_operations_of_a_key_one_after_the_other_and_keys_side_by_side(stage: Stage) -> None:
    under_way: list[str] = []

    async def slow() -> None:
        await asyncio.sleep(1.0)

    stage.state.on_call = lambda name: slow() if name != "timers.load" else None
    began = stage.now

    async def other() -> str:
        under_way.append("exclusive")
        await asyncio.sleep(1.0)
        return "answer"

    calls = [
        stage.set("a", 100),
        stage.set("a", 200),
        stage.timers.exclusive("a", other),
        stage.unset("a", 100),
        stage.times("a"),
        stage.set("b", 100),
        stage.set("c", 100),
    ]
    answers = await asyncio.gather(*calls)
    assert stage.now - began == pytest.approx(5.0), (
        "five of a: one after the other, the rest beside"
    )
    assert answers[2] == "answer"
    assert answers[4] == [200]


async def test_a_fault_in_an_exclusive_operation_is_its_callers(stage: Stage) -> None:
    async def fault() -> None:
        raise ValueError("of the caller's own")

    with pytest.raises(ValueError, match="own"):
        await stage.timers.exclusive("a", fault)
    await stage.set("a", 5)
    assert await stage.times("a") == [5]


async def test_a_cancelled_call_returns_at_once_and_goes_on(stage: Stage) -> None:
    stage.state.on_call = Hook("timers.add", lambda: asyncio.sleep(5.0))
    task = asyncio.create_task(stage.set("a", 30))
    await asyncio.sleep(1.0)
    behind = asyncio.create_task(stage.times("a"))
    began = stage.now
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.now == began
    assert stage.stored() == []
    assert await behind == [30], "what comes after it sees its effect"
    await stage.handle_all(40)
    assert stage.seen == [("a", 30)]


async def test_a_cancelled_call_goes_on_although_it_has_not_begun(stage: Stage) -> None:
    stage.state.on_call = Hook("timers.add", lambda: asyncio.sleep(5.0))
    first = asyncio.create_task(stage.set("a", 30))
    second = asyncio.create_task(stage.set("a", 31))
    await settle()
    second.cancel()
    await first
    await asyncio.wait([second])
    assert await stage.times("a") == [30, 31]


@pytest.mark.parametrize("error", [StoreError("x", retriable=True), ValueError("a fault of ours")])
async def test_what_fails_after_its_caller_has_gone(
    stage: Stage, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails() -> None:
        await asyncio.sleep(1.0)
        raise error

    task = asyncio.create_task(stage.timers.exclusive("a", fails))
    await asyncio.sleep(0.5)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(1.0)
    levels = [record.levelno for record in caplog.records]
    assert levels == ([] if isinstance(error, StoreError) else [logging.CRITICAL])


async def test_the_stop_refuses_what_has_not_begun_and_lets_the_rest_end(stage: Stage) -> None:
    stage.state.on_call = Hook("timers.add", lambda: asyncio.sleep(5.0))
    begun = asyncio.create_task(stage.set("a", 30))
    waits = asyncio.create_task(stage.set("a", 40))
    await settle()
    stage.timers.stop()
    with pytest.raises(StoreError, match="given up"):
        await waits
    await stage.timers.settled()
    await begun
    assert stage.stored() == [("a", 30)]


# Failures


@pytest.mark.parametrize("stored", [True, False])
async def test_a_schedule_that_failed_fires_if_it_was_stored(stage: Stage, stored: bool) -> None:
    hook = Hook("timers.add", fail, 1)
    if stored:
        stage.state.on_done = hook
    else:
        stage.state.on_call = hook
    with pytest.raises(StoreError, match="no"):
        await stage.set("a", 5)
    await stage.set("b", 7)
    await stage.handle_all(10)
    assert stage.seen == ([("a", 5), ("b", 7)] if stored else [("b", 7)])
    assert stage.stored() == []


@pytest.mark.parametrize("how", ["unschedule", "clear", "replace"])
@pytest.mark.parametrize("hook", ["on_call", "on_done"])
async def test_a_cancel_that_failed_leaves_the_timer_to_fire(
    stage: Stage, how: str, hook: str
) -> None:
    await stage.set("a", 5)
    call = {"unschedule": "remove", "clear": "clear", "replace": "replace"}[how]
    setattr(stage.state, hook, Hook(f"timers.{call}", fail))
    with pytest.raises(StoreError, match="no"):
        await (
            stage.unset("a", 5)
            if how == "unschedule"
            else stage.clear("a")
            if how == "clear"
            else stage.replace("a", 3_000)
        )
    setattr(stage.state, hook, None)
    await stage.handle_all(100)
    assert stage.seen == [("a", 5)]


@pytest.mark.parametrize("how", ["clear", "replace"])
async def test_what_is_left_in_memory_alone_is_cancelled_too(stage: Stage, how: str) -> None:
    """Its removal has failed and happened all the same: it would fire, but now a cancel succeeds."""
    await firing(stage, "a", 1, 30)
    stage.state.on_done = Hook("timers.remove", fail, 1)
    with pytest.raises(StoreError):
        await stage.unset("a", 30)
    assert stage.stored() == [("a", 1)]
    if how == "clear":
        await stage.clear("a")
    else:
        await stage.replace("a", 5_000)
    assert await stage.fired[0].end()
    await stage.handle_all(100)
    assert len(stage.fired) == 1


async def test_calls_fail_at_once_while_the_store_is_down(stage: Stage) -> None:
    stage.state.outage()
    began = stage.now
    for call in (
        stage.set("a", 1), stage.unset("a", 1), stage.clear("a"), stage.replace("a", 1),
        stage.times("a"),
    ):  # fmt: skip
        with pytest.raises(StoreDownError):
            await call
    assert stage.now == began


async def test_set_again_where_its_removal_has_failed_is_stored_again(stage: Stage) -> None:
    """The removal may have happened: a mark in memory alone would be lost with the process."""
    timer = await firing(stage)
    stage.state.on_done = Hook("timers.remove", fail, 1)
    ending = asyncio.create_task(timer.end())
    await settle()
    assert stage.stored() == []
    await stage.set("a", 1)
    assert stage.stored() == [("a", 1)]
    assert await ending
    await settle()
    assert stage.seen == [("a", 1), ("a", 1)]


# The end of a timer


@pytest.mark.parametrize("down", [False, True])
async def test_an_end_is_tried_until_it_works(
    stage: Stage, down: bool, caplog: pytest.LogCaptureFixture
) -> None:
    timer = await firing(stage)
    hook = Hook("timers.remove", (lambda: None) if down else fail)
    stage.state.on_call = hook
    if down:
        stage.state.outage()
    ending = asyncio.create_task(timer.end())
    await asyncio.sleep(100.0)
    assert not ending.done()
    assert hook.calls < 200
    began = stage.now
    stage.state.on_call = None
    stage.state.restore()
    assert await ending
    assert stage.now - began <= (2.0 if down else 30.0), "goes on soon after the store is back"
    assert stage.stored() == []
    assert "cannot be removed, trying again" in caplog.text
    await stage.set("a", 1)
    await settle()
    assert len(stage.fired) == 2


async def test_the_stop_ends_the_wait_and_the_timer_stays(stage: Stage) -> None:
    timer = await firing(stage)
    stage.state.outage()
    ending = asyncio.create_task(timer.end())
    await asyncio.sleep(100.0)
    began = stage.now
    stage.timers.stop()
    assert await ending is False
    assert stage.now == began
    assert stage.stored() == [("a", 1)]
    stage.state.restore()
    await stage.next_owner()
    assert stage.seen[1:] == [("a", 1)], "at least once"


async def test_the_callers_own_wait_may_end_it(stage: Stage) -> None:
    timer = await firing(stage)
    stage.state.outage()
    waits: list[float] = []

    async def pause(delay_s: float) -> bool:
        waits.append(delay_s)
        return len(waits) < 3

    assert await timer.end(pause) is False
    assert len(waits) == 3
    assert all(0.0 <= wait <= 2.0 for wait in waits)
    assert stage.stored() == [("a", 1)]
    assert await timer.end() is False, "it was given up"


@pytest.mark.parametrize("wait_s", [0.5, 3.0])
async def test_an_end_that_is_cancelled_can_be_asked_for_again(stage: Stage, wait_s: float) -> None:
    timer = await firing(stage)
    stage.state.on_call = Hook("timers.remove", lambda: asyncio.sleep(2.0))
    ending = asyncio.create_task(timer.end())
    await settle()
    ending.cancel()
    await asyncio.wait([ending])
    await asyncio.sleep(wait_s)
    assert timer.begin() is (wait_s < 2.0)
    assert timer.handled
    assert await timer.end() is True
    assert stage.stored() == []
    await stage.set("a", 1)
    await settle()
    assert len(stage.fired) == 2


async def test_an_aborted_timer_is_the_next_owners(stage: Stage) -> None:
    timer = await firing(stage)
    timer.abort()
    timer.abort()
    assert not timer.begin()
    await stage.until(1_000)
    assert len(stage.fired) == 1
    assert stage.stored() == [("a", 1)]
    await stage.next_owner()
    assert len(stage.fired) == 2


async def test_after_its_end_an_abort_does_nothing(stage: Stage) -> None:
    timer = await firing(stage)
    assert await timer.end()
    await stage.set("a", 1)
    timer.abort()
    await stage.handle_all(3)
    assert stage.stored() == []
    assert repr(timer) == "DueTimer(1700000001, APPLICATION, 'a', ended)"
