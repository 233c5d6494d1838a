"""Timeout: one sweep cancels what is past its deadline, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
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
    timeout = Timeout(10.0, FakeRuntime(), storms())
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
    await asyncio.sleep(1.1)
    assert timeout._timer is None


async def test_a_run_that_ends_in_time_is_left_alone() -> None:
    timeout = Timeout(10.0, FakeRuntime(), storms())

    async def works(_: Run) -> Outcome:
        await asyncio.sleep(9.0)
        return SUCCESS

    run = make_run()
    assert await in_lane(timeout.wrap(works), run) is SUCCESS
    await asyncio.sleep(100.0)
    assert not run.cancelled
    assert timeout._timer is None


async def test_a_retried_run_gets_a_new_deadline_behind_the_others() -> None:
    timeout = Timeout(10.0, FakeRuntime(), storms())
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
    timeout = Timeout(10.0, FakeRuntime(), storms())
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
    timeout = Timeout(10.0, FakeRuntime(), storms())
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


async def stubborn(run: Run) -> Outcome:
    """Stands for Invoke around a handler that ignores its cancellation for 100 s."""
    run.handling = True
    run.context = Context(run)
    run.attempt += 1
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
    timeout = Timeout(timeout_s, FakeRuntime(), storms())
    lane = in_lane(timeout.wrap(stubborn), make_run(7))
    await asyncio.sleep(told_s - 0.01)
    assert "timed out after" in caplog.text
    assert errors(caplog) == []
    await asyncio.sleep(0.02)
    (text,) = errors(caplog)
    assert f"still runs {told_s - timeout_s:.3g} s after it was cancelled" in text
    assert "offset 7" in text
    assert not lane.done()
    await asyncio.sleep(200.0)
    assert len(errors(caplog)) == 1
    assert lane.result() is SUCCESS
    assert deadlines_watched(timeout) == len(timeout._cancelled) == 0
    assert timeout._timer is None


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

    timeout = Timeout(10.0, FakeRuntime(), storms())
    lane = in_lane(timeout.wrap(cleans_up), make_run())
    await asyncio.wait([lane])
    await asyncio.sleep(20.0)
    assert errors(caplog) == []
    assert timeout._timer is None


async def test_one_that_is_stubborn_delays_no_other_deadline() -> None:
    timeout = Timeout(0.1, FakeRuntime(), storms())
    loop = asyncio.get_running_loop()
    first = in_lane(timeout.wrap(stubborn), make_run(0))
    await asyncio.sleep(0.15)  # the grace of the first ends at 1.1
    second = in_lane(timeout.wrap(handler), make_run(1))
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
    timeout = Timeout(10.0, runtime, storms())
    lane = in_lane(timeout.wrap(handler), make_run())
    await settle()
    blocked_s = 60.0  # the sweep comes long after deadline and grace
    await asyncio.wait([lane])
    assert lane.cancelled()
    assert errors(caplog) == []
    timeout.close()


async def test_close_tells_no_more_of_the_stubborn(caplog: pytest.LogCaptureFixture) -> None:
    timeout = Timeout(10.0, FakeRuntime(), storms())
    lane = in_lane(timeout.wrap(stubborn), make_run())
    await asyncio.sleep(10.5)
    timeout.close()
    later = in_lane(timeout.wrap(handler), make_run())  # left behind, it begins another attempt
    await asyncio.wait([lane, later])
    assert errors(caplog) == []
    timeout.close()


MUTANTS = {
    "never told": ("            self._cancelled[run] = now\n", ""),
    "told although it has ended": ("cancelled.pop(run, None)", "pass"),
    "told at once": ("wait_s = cancelled_at + self._grace_s - now", "wait_s = cancelled_at - now"),
    "no least grace": ("max(_GRACE_S_MIN, timeout_s * _GRACE_SHARE)", "timeout_s * _GRACE_SHARE"),
    "the grace does not grow": ("max(_GRACE_S_MIN, timeout_s * _GRACE_SHARE)", "_GRACE_S_MIN"),
    "the timer stands for the grace alone": (
        "self._arm(min(*waits, self._timeout_s))",
        "self._arm(min(waits))",
    ),
    "counted from the deadline": (
        "self._cancelled[run] = now",
        "self._cancelled[run] = run.began + self._timeout_s",
    ),
    "close forgets the cancelled": ("        self._cancelled.clear()\n", ""),
}


SCENARIOS = (
    *(
        partial(test_a_handler_that_ignores_its_cancellation_is_told_once, *times)
        for times in ((50.0, 55.0), (5.0, 6.0), (0.1, 1.1))
    ),
    test_a_handler_that_cleans_up_in_time_is_not_told,
    test_a_loop_that_was_blocked_leaves_time_to_stop,
    test_close_tells_no_more_of_the_stubborn,
    lambda _: test_one_that_is_stubborn_delays_no_other_deadline(),
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
