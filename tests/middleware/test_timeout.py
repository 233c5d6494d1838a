"""Timeout: one sweep cancels what is past its deadline, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from prosody.middleware.timeout import Timeout
from prosody.model.context import Context
from prosody.model.outcome import SUCCESS, Outcome
from prosody.model.run import Run
from tests.middleware.fakes import in_lane, make_run, storms
from tests.mutant import mutant
from tests.support import DeadlockError, FakeRuntime, run_virtual, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from prosody.middleware.base import Call


async def handler(run: Run) -> Outcome:
    """Stands for Invoke around a handler that hangs."""
    run.handling = True
    run.context = Context(run)
    try:
        await asyncio.Event().wait()
    finally:
        run.handling = False
    return SUCCESS


@dataclass(eq=False)
class Lane:
    """A lane of one run; it idles when that has ended."""

    run: Run | None


class Watched:
    """A timeout, and the lanes that it watches."""

    def __init__(self, timeout_s: float, runtime: FakeRuntime | None = None) -> None:
        self.timeout = Timeout(timeout_s, runtime or FakeRuntime(), storms())
        self.all: list[Lane] = []
        self.timeout.lanes = lambda: self.all

    def begin(self, inner: Call, run: Run) -> asyncio.Task[Outcome]:
        """Take a run through the stack in a lane of its own, which has just begun to take some."""
        call = self.timeout.wrap(inner)
        self.timeout.watch()
        lane = Lane(run)
        self.all.append(lane)
        run.attempt += 1
        run.cancelled = False
        task = in_lane(call, run)
        task.add_done_callback(lambda _: setattr(lane, "run", None))
        return task

    @property
    def left(self) -> tuple[int, int, bool]:
        """What is watched still: handlers, cancelled ones, and whether there is a timer."""
        timeout = self.timeout
        return len(timeout._handling), len(timeout._cancelled), timeout._timer is not None


NOTHING = (0, 0, False)


def watched(timeout_s: float, runtime: FakeRuntime | None = None) -> Watched:
    made = Watched(timeout_s, runtime)
    made.timeout.wrap(handler)  # else it is in no stack, and watches nothing
    return made


async def test_each_run_has_its_own_deadline_and_one_timer_is_enough() -> None:
    lanes = watched(10.0)
    loop = asyncio.get_running_loop()
    ended: dict[int, float] = {}
    tasks = []
    for number in range(4):
        task = lanes.begin(handler, make_run(number))
        task.add_done_callback(lambda _, n=number: ended.setdefault(n, loop.time()))
        tasks.append(task)
        await asyncio.sleep(2.0)
    await asyncio.wait(tasks)
    await settle()
    assert ended == pytest.approx({0: 10.0, 1: 12.0, 2: 14.0, 3: 16.0})
    assert all(task.cancelled() for task in tasks)
    await asyncio.sleep(10.1)
    assert lanes.left == NOTHING


async def test_a_run_that_ends_in_time_is_left_alone() -> None:
    lanes = watched(10.0)

    async def works(run: Run) -> Outcome:
        run.handling = True
        await asyncio.sleep(9.0)
        run.handling = False
        return SUCCESS

    run = make_run()
    assert await lanes.begin(works, run) is SUCCESS
    await asyncio.sleep(100.0)
    assert not run.cancelled
    assert lanes.left == NOTHING


async def test_a_lane_that_goes_from_run_to_run_is_watched_without_being_told() -> None:
    """Its first run began a watch; whatever it takes later has its deadline all the same."""
    lanes = watched(10.0)
    loop = asyncio.get_running_loop()
    took: list[float] = []

    async def lane_of(lane: Lane) -> None:
        for seconds in (3.0, 9.5, 0.0, 7.3, 60.0, 2.0, 60.0):
            lane.run = run = make_run()
            run.began = began = loop.time()
            run.handling = True
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(seconds)
            run.handling = False
            took.append(loop.time() - began)

    lanes.timeout.watch()
    lanes.all = [Lane(None) for _ in range(3)]
    tasks = []
    for lane in lanes.all:
        tasks.append(asyncio.create_task(lane_of(lane)))
        await asyncio.sleep(1.7)
    await asyncio.wait(tasks)
    assert sorted(took) == pytest.approx(sorted([3.0, 9.5, 0.0, 7.3, 10.0, 2.0, 10.0] * 3))


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_runs_when_the_deadline_is_the_deadline(seed: int) -> None:
    """Many lanes, runs of any length, idling in between: the sweep is never late and never early."""
    chance = random.Random(seed)
    lanes = watched(10.0)
    loop = asyncio.get_running_loop()
    wrong: list[tuple[float, float]] = []

    async def lane_of(lane: Lane) -> None:
        for _ in range(30):
            if lane.run is None:
                lanes.timeout.watch()
            lane.run = run = make_run()
            run.task = asyncio.current_task()
            run.began = began = loop.time()
            seconds = chance.choice([0.0, 0.01, 3.0, chance.uniform(0, 20), chance.uniform(9, 11)])
            run.handling = True
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(seconds)
            run.handling = False
            if abs(loop.time() - began - min(seconds, 10.0)) > 1e-6:
                wrong.append((seconds, loop.time() - began))
            if chance.random() < 0.3:
                lane.run = None
                await asyncio.sleep(chance.uniform(0, 30))
        lane.run = None

    lanes.all = [Lane(None) for _ in range(8)]
    await asyncio.gather(*map(lane_of, lanes.all))
    assert wrong == []
    await asyncio.sleep(10.1)
    assert lanes.left == NOTHING


async def test_a_timeout_that_is_in_no_stack_watches_nothing() -> None:
    timeout = Timeout(10.0, FakeRuntime(), storms())
    timeout.watch()
    assert timeout._timer is None


async def test_lanes_that_idle_are_not_watched() -> None:
    lanes = watched(10.0)
    lanes.timeout.watch()
    lanes.all = [Lane(None)]
    await asyncio.sleep(10.1)
    assert lanes.left == NOTHING
    task = lanes.begin(handler, make_run())
    await asyncio.wait([task])
    assert asyncio.get_running_loop().time() == pytest.approx(20.1)


async def test_a_retried_run_gets_a_new_deadline_behind_the_others() -> None:
    lanes = watched(10.0)
    loop = asyncio.get_running_loop()
    first = lanes.begin(handler, make_run(0))
    await asyncio.sleep(4.0)
    second = lanes.begin(handler, make_run(1))
    await asyncio.sleep(3.0)
    first.cancel()
    await settle()
    again = lanes.begin(handler, make_run(0))
    await asyncio.wait([second])
    assert loop.time() == pytest.approx(14.0)
    await asyncio.wait([again])
    assert loop.time() == pytest.approx(17.0)


async def test_one_that_a_shutdown_has_cancelled_is_told_at_its_deadline(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lanes = watched(10.0)
    await asyncio.sleep(1.0)
    run = make_run(7)
    task = lanes.begin(stubborn, run)
    await asyncio.sleep(1.0)
    run.cancel()
    await asyncio.sleep(8.9)
    assert caplog.records == []
    await asyncio.sleep(1.2)
    assert "timed out after 10 s" in caplog.text
    assert len(errors(caplog)) == 1
    await task


async def test_the_context_says_so_at_the_deadline(caplog: pytest.LogCaptureFixture) -> None:
    lanes = watched(10.0)
    run = make_run(5)
    task = lanes.begin(handler, run)
    await settle()
    context = run.context
    assert context is not None
    assert not context.should_cancel()
    told = asyncio.create_task(context.on_cancel())
    await asyncio.wait([told])
    assert asyncio.get_running_loop().time() == pytest.approx(10.0)
    assert context.should_cancel()
    await asyncio.wait([task])
    assert "timed out after 10 s" in caplog.text
    assert "offset 5" in caplog.text


async def test_close_watches_no_more() -> None:
    lanes = watched(10.0)
    run = make_run()
    task = lanes.begin(handler, run)
    await settle()
    lanes.timeout.close()
    lanes.timeout.close()
    await asyncio.sleep(20.0)
    assert not run.cancelled
    task.cancel()
    await settle()
    assert lanes.left == NOTHING


async def stubborn(run: Run) -> Outcome:
    """Stands for Invoke around a handler that ignores its cancellation for 100 s."""
    run.handling = True
    run.context = Context(run)
    deaf_until = asyncio.get_running_loop().time() + 100.0
    while (left := deaf_until - asyncio.get_running_loop().time()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(left)
    run.handling = False
    return SUCCESS


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]


@pytest.mark.parametrize(("timeout_s", "told_s"), [(50.0, 55.0), (5.0, 6.0), (0.1, 1.1)])
async def test_a_handler_that_ignores_its_cancellation_is_told_once(
    timeout_s: float, told_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    lanes = watched(timeout_s)
    task = lanes.begin(stubborn, make_run(7))
    await asyncio.sleep(told_s - 0.01)
    assert "timed out after" in caplog.text
    assert errors(caplog) == []
    await asyncio.sleep(0.02)
    (text,) = errors(caplog)
    assert f"still runs {told_s - timeout_s:.3g} s after it was cancelled" in text
    assert "offset 7" in text
    assert not task.done()
    await asyncio.sleep(200.0)
    assert len(errors(caplog)) == 1
    assert caplog.text.count("timed out after") == 1
    assert task.result() is SUCCESS
    assert lanes.left == NOTHING


async def test_a_handler_that_cleans_up_in_time_is_not_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def cleans_up(run: Run) -> Outcome:
        run.handling = True
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.9)
            run.handling = False
        return SUCCESS

    lanes = watched(10.0)
    await asyncio.wait([lanes.begin(cleans_up, make_run())])
    await asyncio.sleep(20.0)
    assert errors(caplog) == []
    assert lanes.left == NOTHING


async def test_one_that_is_stubborn_delays_no_other_deadline() -> None:
    lanes = watched(0.1)
    loop = asyncio.get_running_loop()
    first = lanes.begin(stubborn, make_run(0))
    await asyncio.sleep(0.15)  # the grace of the first ends at 1.1
    second = lanes.begin(handler, make_run(1))
    await asyncio.wait([second])
    assert loop.time() == pytest.approx(0.25)
    await first


async def test_a_loop_that_was_blocked_leaves_time_to_stop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runtime = FakeRuntime()
    clock = runtime.monotonic
    blocked_s = 0.0
    runtime.monotonic = lambda: clock() + blocked_s  # type: ignore[method-assign]
    lanes = watched(10.0, runtime)
    task = lanes.begin(handler, make_run())
    await settle()
    blocked_s = 60.0  # the sweep comes long after deadline and grace
    await asyncio.wait([task])
    assert task.cancelled()
    assert errors(caplog) == []
    lanes.timeout.close()


async def test_close_tells_no_more_of_the_stubborn(caplog: pytest.LogCaptureFixture) -> None:
    lanes = watched(10.0)
    task = lanes.begin(stubborn, make_run())
    await asyncio.sleep(10.5)
    lanes.timeout.close()
    lanes.timeout.watch()  # a lane that was left behind begins once more
    await asyncio.wait([task])
    assert errors(caplog) == []
    assert lanes.left == NOTHING


MUTANTS = {
    "never told": ("                self._cancelled.append((now, began, lane))\n", ""),
    "told although it has ended": (
        "run if run is not None and run.handling and run.began == began else None",
        "run",
    ),
    "told at once": ("wait_s = cancelled_at + self._grace_s - now", "wait_s = cancelled_at - now"),
    "no least grace": ("max(_GRACE_S_MIN, timeout_s * _GRACE_SHARE)", "timeout_s * _GRACE_SHARE"),
    "the grace does not grow": ("max(_GRACE_S_MIN, timeout_s * _GRACE_SHARE)", "_GRACE_S_MIN"),
    "the timer does not stand for the next look": (
        "self._arm(min(*waits, self._looked_at + self._timeout_s - now, self._timeout_s))",
        "self._arm(min(*waits, 1e9))",
    ),
    "counted from the deadline": (
        "append((now, began, lane))",
        "append((began + self._timeout_s, began, lane))",
    ),
    "close forgets the cancelled": ("        self._cancelled.clear()\n", ""),
    "a look finds what was cancelled once more": (
        "(run.began > self._noted_until or not run.cancelled)",
        "True",
    ),
    "what a shutdown has cancelled is not told": (
        "(run.began > self._noted_until or not run.cancelled)",
        "not run.cancelled",
    ),
    "what begins with the first look is not seen": (
        "(run.began > self._noted_until or not run.cancelled)",
        "run.began > self._noted_until",
    ),
    "not in order of deadlines": ("deque(sorted(handling, key=itemgetter(0)))", "deque(handling)"),
    "looked at once": (
        "busy = now < self._looked_at + self._timeout_s or self._look(now)",
        "busy = 0",
    ),
    "goes on for ever": ("return bool(found)", "return True"),
    "an attempt is taken for the one before": (" and run.began == began else None", " else None"),
    "it waits for the end of all others": (
        "                    return wait_s\n                self._cancel(run)",
        "                    return None\n                self._cancel(run)",
    ),
}


SCENARIOS = (
    *(
        partial(test_a_handler_that_ignores_its_cancellation_is_told_once, *times)
        for times in ((50.0, 55.0), (5.0, 6.0), (0.1, 1.1))
    ),
    test_a_handler_that_cleans_up_in_time_is_not_told,
    test_a_loop_that_was_blocked_leaves_time_to_stop,
    test_close_tells_no_more_of_the_stubborn,
    test_one_that_a_shutdown_has_cancelled_is_told_at_its_deadline,
    lambda _: test_one_that_is_stubborn_delays_no_other_deadline(),
    lambda _: test_lanes_that_idle_are_not_watched(),
    *(
        lambda _, seed=seed: test_whatever_runs_when_the_deadline_is_the_deadline(seed)
        for seed in range(3)
    ),
)


@pytest.mark.parametrize("name", list(MUTANTS))
def test_mutant_is_seen(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    changed = mutant("middleware.timeout", *MUTANTS[name])
    monkeypatch.setitem(globals(), "Timeout", changed.Timeout)

    def shows(scenario: Callable[..., Coroutine[Any, Any, None]]) -> bool:
        caplog.clear()
        try:
            run_virtual(scenario(caplog))
        except (AssertionError, ValueError, DeadlockError):
            return True
        return False

    assert any(shows(scenario) for scenario in SCENARIOS), f"nothing shows that it is {name}"
