"""Retry: how long it waits, how often it tries, what ends it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosody.middleware.retry import Retry, pause
from prosody.model.backoff import backoff_s
from prosody.model.outcome import ABANDONED, SUCCESS, Kind, Outcome, Refusal
from prosody.model.run import Run, WorkClass
from prosody.observe.storm import BURST, QUIET_S
from tests.middleware.fakes import (
    DEFERRED,
    PERMANENT,
    TRANSIENT,
    FakePartition,
    Inner,
    in_lane,
    make_run,
    storms,
)
from tests.support import FakeRuntime, settle


@given(
    failures=st.integers(1, 10_000),
    base_s=st.floats(0, 1e6),
    max_s=st.floats(0, 1e6),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_backoff_stays_within_its_bound(
    failures: int, base_s: float, max_s: float, chance: float
) -> None:
    waited_s = backoff_s(failures, base_s, max_s, chance)
    assert 0 <= waited_s <= max_s
    assert waited_s <= base_s * 2.0 ** min(failures, 64)


def test_backoff_doubles_and_begins_near_its_base() -> None:
    assert [backoff_s(n, 1.0, 10.0, 0.5) for n in (1, 2, 3, 4, 5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert backoff_s(1, 0.0, 10.0, 0.9) == 0.0


class HalfRuntime(FakeRuntime):
    def random(self) -> float:
        return 0.5


async def test_waits_grow_on_the_clock_and_the_work_class_changes() -> None:
    inner = Inner(TRANSIENT, TRANSIENT, TRANSIENT, SUCCESS)
    run = make_run()
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await Retry(1.0, 3.0, HalfRuntime(), storms()).wrap(inner)(run) is SUCCESS
    assert len(inner.runs) == 4
    assert loop.time() - began == pytest.approx(1.0 + 1.5 + 1.5)
    assert run.work_class is WorkClass.FAILURE


@pytest.mark.parametrize("outcome", [SUCCESS, PERMANENT, ABANDONED, DEFERRED])
async def test_only_transient_failures_are_tried_again(outcome: Outcome) -> None:
    inner = Inner(outcome)
    run = make_run()
    assert await Retry(1.0, 3.0, HalfRuntime(), storms()).wrap(inner)(run) is outcome
    assert len(inner.runs) == 1
    assert run.work_class is WorkClass.NORMAL


@pytest.mark.parametrize("retries", [0, 1, 3])
async def test_max_retries_counts_what_follows_the_first_attempt(retries: int) -> None:
    inner = Inner(TRANSIENT)
    assert (
        await Retry(0.0, 0.0, HalfRuntime(), storms(), retries).wrap(inner)(make_run()) is TRANSIENT
    )
    assert len(inner.runs) == 1 + retries


async def test_a_shutdown_ends_a_backoff_at_once() -> None:
    inner = Inner(TRANSIENT)
    run = make_run()
    lane = in_lane(Retry(1000.0, 5000.0, HalfRuntime(), storms()).wrap(inner), run)
    await settle()
    run.interrupt()
    assert await lane is ABANDONED
    assert asyncio.get_running_loop().time() < 1.0
    assert run.interruptible is None


async def test_no_backoff_begins_when_the_partition_is_given_up() -> None:
    partition = FakePartition()
    partition.running = False
    assert await pause(make_run(0, partition), 1000.0) is False
    assert asyncio.get_running_loop().time() < 1.0


async def test_a_cancelled_backoff_leaves_no_timer() -> None:
    run = make_run()
    lane = in_lane(lambda r: pause(r, 5.0), run)
    await settle()
    lane.cancel()
    await settle()
    assert lane.cancelled()
    assert run.interruptible is None


async def test_a_dropped_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    await Retry(0.0, 0.0, HalfRuntime(), storms()).wrap(Inner(TRANSIENT, PERMANENT))(make_run(7))
    assert "attempt 0 failed" in caplog.text
    assert "failed permanently, dropped" in caplog.text
    assert "offset 7" in caplog.text
    assert TRANSIENT.kind is Kind.TRANSIENT


async def test_a_refusal_waits_until_the_time_it_names_and_counts_as_no_attempt() -> None:
    refusal = Refusal(ValueError("not yet"), 50.0)
    inner = Inner(refusal, refusal, TRANSIENT, SUCCESS)
    run = make_run()
    classes: list[WorkClass] = []

    async def noted(run: Run) -> Outcome:
        classes.append(run.work_class)
        return await inner(run)

    # One retry is allowed, and two refusals use none of it up.
    retry = Retry(1.0, 3.0, HalfRuntime(), storms(), 1)
    assert await retry.wrap(noted)(run) is SUCCESS
    assert asyncio.get_running_loop().time() == pytest.approx(50.0 + 1.0)
    assert classes == [WorkClass.NORMAL] * 3 + [WorkClass.FAILURE]


async def test_a_shutdown_ends_the_wait_after_a_refusal() -> None:
    run = make_run()
    refusing = Inner(Refusal(ValueError("not yet"), 50.0))
    lane = in_lane(Retry(1.0, 3.0, HalfRuntime(), storms()).wrap(refusing), run)
    await settle()
    run.interrupt()
    assert await lane is ABANDONED
    assert asyncio.get_running_loop().time() < 1.0


async def test_no_permit_is_held_during_a_wait() -> None:
    run, partition = make_run(), FakePartition()
    run.partition = partition  # type: ignore[assignment]
    await pause(run, 1.0)
    assert partition.gave_back == [run]


async def test_a_storm_of_failures_leaves_lines_out_and_counts_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runtime, many = HalfRuntime(), storms()
    retry = Retry(0.001, 0.001, runtime, many)
    await retry.wrap(Inner(*[TRANSIENT] * 300, SUCCESS))(make_run())
    assert len(caplog.records) == BURST
    assert [r.exc_info is not None for r in caplog.records] == [True] + [False] * (BURST - 1)
    many.settle()
    assert len(caplog.records) == BURST, "it may not be over"
    await asyncio.sleep(QUIET_S)
    many.settle()
    assert f"({300 - BURST} more like this in the last 5 s)" in caplog.records[-1].getMessage()
