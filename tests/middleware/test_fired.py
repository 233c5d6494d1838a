"""Fired: a timer begins when its turn has come, and ends exactly once, whatever happens."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from prosody.errors import HandlerTypeError
from prosody.middleware.fired import Fired
from prosody.middleware.invoke import Invoke
from prosody.model.handler import HandlerMethods
from prosody.model.message import Timer
from prosody.model.outcome import ABANDONED, SUCCESS, Kind
from prosody.model.run import Run
from prosody.stores.protocol import TimerKind
from prosody.timers.due import DueTimer, State
from tests.middleware.fakes import (
    DEFERRED,
    PERMANENT,
    TRANSIENT,
    FakePartition,
    Gate,
    Inner,
    in_lane,
    make_run,
)
from tests.support import settle

if TYPE_CHECKING:
    from prosody.timers.due import Pause

EVENT = Timer("k", datetime(2030, 1, 1, tzinfo=UTC))


class Keeper:
    """Stands for a partition's timers."""

    def __init__(self, *, removed: bool = True) -> None:
        self.calls: list[str] = []
        self.removed = removed
        self.wait: asyncio.Future[None] | None = None
        self.pauses: list[bool] = []

    def begin(self, timer: DueTimer) -> bool:
        self.calls.append("begin")
        if timer.state is State.HANDED:
            timer.state = State.FIRING
        return timer.state is State.FIRING

    async def end(self, timer: DueTimer, pause: Pause | None) -> bool:
        self.calls.append("end")
        if self.wait is not None:
            await self.wait
        if not self.removed:
            assert pause is not None
            while await pause(5.0):
                self.pauses.append(True)
            return False
        timer.state = State.ENDED
        return True

    def abort(self, timer: DueTimer) -> None:
        self.calls.append("abort")
        timer.state = State.GONE


def timer_run(keeper: Keeper, kind: TimerKind = TimerKind.APPLICATION) -> Run:
    timer = DueTimer(1_893_456_000, kind, "k", {}, keeper)
    timer.state = State.HANDED
    partition: Any = FakePartition()
    return Run(partition, None, "k", EVENT, timer=timer)


def test_where_there_is_no_timer_it_is_a_plain_call() -> None:
    answer: Any = object()
    calls: list[object] = []

    def inner(run: Any) -> Any:
        calls.append(run)
        return answer

    run: Any = type("Run", (), {"timer": None})()
    assert Fired(None).wrap(inner)(run) is answer
    assert calls == [run]


async def test_a_message_passes() -> None:
    run = make_run(1)
    assert await Fired(None).wrap(Inner(TRANSIENT))(run) is TRANSIENT


@pytest.mark.parametrize("outcome", [SUCCESS, TRANSIENT, PERMANENT, DEFERRED])
async def test_what_has_ended_is_removed(outcome: Any) -> None:
    keeper, inner = Keeper(), Inner(outcome)
    run = timer_run(keeper)
    assert await Fired(None).wrap(inner)(run) is outcome
    assert keeper.calls == ["begin", "end"]
    assert inner.runs == [run]


async def test_what_is_abandoned_stays() -> None:
    keeper = Keeper()
    assert await Fired(None).wrap(Inner(ABANDONED))(timer_run(keeper)) is ABANDONED
    assert keeper.calls == ["begin", "abort"]


async def test_a_cancelled_one_does_not_run() -> None:
    keeper, inner = Keeper(), Inner()
    run = timer_run(keeper)
    assert run.timer is not None
    run.timer.state = State.GONE
    assert await Fired(None).wrap(inner)(run) is SUCCESS
    assert (keeper.calls, inner.runs) == (["begin"], [])


@pytest.mark.parametrize("kind", [TimerKind.DEFERRED_MESSAGE, TimerKind.DEFERRED_TIMER])
async def test_retry_timers_are_redelivered(kind: TimerKind) -> None:
    keeper, inner, redeliver = Keeper(), Inner(), Inner(DEFERRED)
    run = timer_run(keeper, kind)
    assert await Fired(redeliver).wrap(inner)(run) is DEFERRED
    assert (inner.runs, redeliver.runs) == ([], [run])
    assert keeper.calls == ["begin", "end"]


async def test_a_retry_timer_where_nothing_is_deferred_is_a_fault_of_ours() -> None:
    keeper = Keeper()
    with pytest.raises(AssertionError, match="retry timers"):
        await Fired(None).wrap(Inner())(timer_run(keeper, TimerKind.DEFERRED_TIMER))
    assert keeper.calls == ["begin", "abort"]


@pytest.mark.parametrize("permit", [True, False])
async def test_no_permit_is_held_while_it_is_removed(permit: bool) -> None:
    keeper = Keeper()
    run = timer_run(keeper)
    run.permit = permit
    await Fired(None).wrap(Inner())(run)
    partition: Any = run.partition
    assert partition.gave_back == [run] * permit


async def test_a_shutdown_ends_the_wait_and_it_stays() -> None:
    keeper = Keeper(removed=False)
    run = timer_run(keeper)
    lane = in_lane(Fired(None).wrap(Inner()), run)
    await asyncio.sleep(12.0)
    assert keeper.pauses == [True, True]
    run.partition.running = False
    run.interrupt()
    assert await lane is ABANDONED
    assert keeper.calls == ["begin", "end"], "the end has given it up by itself"


async def test_a_lane_that_is_replaced_while_the_handler_waits() -> None:
    """The run goes on in another lane: the timer has begun already, and begins no second time."""
    keeper, gate = Keeper(), Gate()
    run = timer_run(keeper)
    call = Fired(None).wrap(gate)
    first = in_lane(call, run)
    await settle()
    first.cancel()
    await asyncio.wait([first])
    second = in_lane(call, run)
    await settle()
    gate.let_out()
    assert await second is SUCCESS
    assert keeper.calls == ["begin", "begin", "end"]


async def test_a_lane_that_is_replaced_while_the_timer_is_removed() -> None:
    """The handler has succeeded, so it is not called again."""
    keeper, inner = Keeper(), Inner()
    run = timer_run(keeper)
    assert run.timer is not None
    keeper.wait = asyncio.get_running_loop().create_future()
    call = Fired(None).wrap(inner)
    first = in_lane(call, run)
    await settle()
    first.cancel()
    await asyncio.wait([first])
    run.timer.handled = True  # what the real end notes at its beginning
    keeper.wait = None
    assert await in_lane(call, run) is SUCCESS
    assert inner.runs == [run]
    assert keeper.calls == ["begin", "end", "end"]


@pytest.mark.parametrize("running", [True, False])
async def test_a_cancelled_lane_gives_up_only_what_is_not_to_go_on(running: bool) -> None:
    keeper, gate = Keeper(), Gate()
    run = timer_run(keeper)
    lane = in_lane(Fired(None).wrap(gate), run)
    await settle()
    run.partition.running = running
    lane.cancel()
    await asyncio.wait([lane])
    assert lane.cancelled()
    assert keeper.calls == ["begin"] + ["abort"] * (not running)


async def test_a_fault_of_ours_leaves_it_to_the_next_assignment() -> None:
    async def fault(_: Run) -> Any:
        raise ValueError("no")

    keeper = Keeper()
    with pytest.raises(ValueError, match="no"):
        await Fired(None).wrap(fault)(timer_run(keeper))
    assert keeper.calls == ["begin", "abort"]


# The handler


class Handler:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def on_message(self, *_: object) -> None: ...

    async def on_timer(self, context: Any, timer: Timer) -> None:
        self.seen += [await context_is_open(context), timer]


class NoTimers:
    async def on_message(self, *_: object) -> None: ...


async def context_is_open(context: Any) -> bool:
    return not context.should_cancel()


async def test_on_timer_is_called() -> None:
    handler = Handler()
    invoke = Invoke(HandlerMethods(handler), lambda: False)
    run = timer_run(Keeper())
    assert (await in_lane(invoke.call, run)).kind is Kind.SUCCESS
    assert handler.seen == [True, EVENT]
    assert run.attempt == 1


async def test_without_on_timer_the_timer_is_not_lost_and_the_log_can_say_why() -> None:
    invoke = Invoke(HandlerMethods(NoTimers()), lambda: False)
    outcome = await in_lane(invoke.call, timer_run(Keeper()))
    assert outcome.kind is Kind.TRANSIENT
    assert isinstance(outcome.error, HandlerTypeError)
    assert str(outcome.error) == (
        "a timer fired for key 'k', but NoTimers has no on_timer: add "
        "'async def on_timer(self, context, timer)'"
    )
