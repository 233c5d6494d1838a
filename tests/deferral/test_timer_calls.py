"""What a handler sees of its key's timers while some of them are deferred."""

from __future__ import annotations

from typing import Any, cast

from prosody.deferral.timer_calls import TimerCalls
from prosody.model.message import Timer
from prosody.model.times import utc_from_seconds
from prosody.stores.protocol import Deferred, DeferredKind, TimerKind
from tests.deferral.fakes import Bench
from tests.middleware.fakes import make_run

T = DeferredKind.TIMER
LIVE, RETRY = TimerKind.APPLICATION, TimerKind.DEFERRED_TIMER


class Calls(Bench):
    def __init__(self) -> None:
        super().__init__()
        self.of_handler = TimerCalls(self.timers, self.deferrals, self.runtime, lambda: {"a": "b"})

    async def defer(self, *times: int) -> None:
        await self.deferrals.defer(T, "k", Deferred(times[0], 0, {}), "why", self.wall + 900)
        for time in times[1:]:
            await self.deferrals.append(T, "k", Deferred(time, 0, {}), 0)
        self.timers.calls.clear()

    def retried(self, time: int) -> Any:
        """The run of a timer whose handler runs now."""
        return make_run(event=cast("Any", Timer("k", utc_from_seconds(time))))


async def test_nothing_deferred_asks_only_the_timers() -> None:
    bench, run = Calls(), make_run()
    calls = bench.of_handler
    await calls.schedule(run, 50)
    await calls.schedule(run, 40)
    assert await calls.scheduled(run) == [40, 50]
    await calls.unschedule(run, 40)
    await calls.clear_and_schedule(run, 70)
    assert await calls.scheduled(run) == [70]
    await calls.clear_scheduled(run)
    assert await calls.scheduled(run) == []
    assert not any(name.startswith("deferred") for name in bench.calls)


async def test_without_deferral_it_is_the_same() -> None:
    bench, run = Calls(), make_run()
    calls = TimerCalls(bench.timers, None, bench.runtime)
    await calls.schedule(run, 50)
    await calls.unschedule(run, 50)
    await calls.clear_and_schedule(run, 60)
    assert await calls.scheduled(run) == [60]
    await calls.clear_scheduled(run)
    assert await calls.scheduled(run) == []


async def test_deferred_ones_are_timers_too() -> None:
    bench, run = Calls(), make_run()
    await bench.defer(10, 20)
    await bench.of_handler.schedule(run, 60)
    await bench.of_handler.schedule(run, 20)
    assert await bench.of_handler.scheduled(run) == [10, 20, 60]
    assert bench.queue(T, "k") == [10, 20], "a new one must not run before its time"


async def test_the_one_that_runs_now_is_none_any_more() -> None:
    bench = Calls()
    await bench.defer(10, 20)
    run = bench.retried(10)
    assert await bench.of_handler.scheduled(run) == [20]
    await bench.of_handler.schedule(run, 10)
    assert await bench.of_handler.scheduled(run) == [10, 20], "unless it was set again"


async def test_unschedule_takes_it_out_of_both() -> None:
    bench, run = Calls(), make_run()
    await bench.defer(10, 20)
    await bench.of_handler.schedule(run, 20)
    await bench.of_handler.unschedule(run, 20)
    assert await bench.of_handler.scheduled(run) == [10]
    assert bench.retry_timers("k", RETRY) == [bench.wall + 900]


async def test_what_waited_for_a_head_that_is_cancelled_comes_now() -> None:
    bench, run = Calls(), make_run()
    await bench.defer(10, 20)
    await bench.of_handler.unschedule(run, 10)
    assert bench.queue(T, "k") == [20]
    assert bench.retry_timers("k", RETRY) == [bench.wall]


async def test_the_last_one_cancelled_takes_its_retry_timer_along() -> None:
    bench, run = Calls(), make_run()
    await bench.defer(10)
    await bench.of_handler.unschedule(run, 10)
    assert bench.queue(T, "k") == bench.retry_timers("k", RETRY) == []
    assert not bench.deferrals.holds(T, "k")


async def test_clear_takes_all_but_what_is_retried_now() -> None:
    bench = Calls()
    await bench.defer(10, 20, 30)
    run = bench.retried(10)
    await bench.of_handler.clear_scheduled(run)
    assert bench.queue(T, "k") == [10]
    assert await bench.of_handler.scheduled(run) == []
    assert await bench.of_handler.scheduled(make_run()) == [10], "for others it is one again"
    await bench.of_handler.clear_scheduled(make_run())
    assert bench.queue(T, "k") == bench.retry_timers("k", RETRY) == []


async def test_a_replacement_is_there_before_anything_is_gone() -> None:
    bench, run = Calls(), make_run()
    await bench.defer(10, 20)
    bench.calls.clear()
    await bench.of_handler.clear_and_schedule(run, 99)
    assert bench.calls[0] == "timers.replace"
    assert await bench.of_handler.scheduled(run) == [99]
    assert bench.queue(T, "k") == []


async def test_the_trace_is_kept() -> None:
    bench, run = Calls(), make_run()
    await bench.of_handler.schedule(run, 50)
    await bench.of_handler.clear_and_schedule(run, 60)
    assert [dict(t) for t in bench.state.timers.popitem()[1].traces.values()] == [{"a": "b"}]
    assert LIVE == 0
