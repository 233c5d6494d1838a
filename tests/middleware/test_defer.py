"""The layer: what is deferred, what joins a queue, what is tried again in place, and what is counted."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from prosody.deferral.gate import SAMPLE
from prosody.errors import StoreError
from prosody.middleware.defer import Postponed, error_text
from prosody.model.outcome import ABANDONED, SUCCESS, Kind, Refusal
from prosody.stores.protocol import DeferredKind, TimerKind
from tests.middleware.deferring import Deferring, Handler, M, T
from tests.middleware.fakes import PERMANENT, TRANSIENT, in_lane
from tests.support import settle


def counts(bench: Deferring) -> tuple[int, int]:
    return bench.gate.window.counts(bench.clock.latest)


async def test_without_deferral_there_is_only_the_handler() -> None:
    bench = Deferring(Handler(TRANSIENT))
    bench.partition.deferrals = None
    assert await bench.defer(bench.message(1)) is TRANSIENT
    assert bench.calls == []
    assert counts(bench) == (0, 0)


async def test_success_asks_nothing() -> None:
    bench = Deferring()
    assert await bench.defer(bench.message(1)) is SUCCESS
    assert bench.calls == []
    assert counts(bench) == (1, 0)


async def test_a_failure_is_stored_with_its_timer(caplog: pytest.LogCaptureFixture) -> None:
    bench = Deferring(Handler(TRANSIENT))
    headers = (("traceparent", b"t"), ("other", b"o"), ("baggage", None))
    run = bench.message(7, headers=headers)
    outcome = await bench.defer(run)
    assert (outcome.kind, outcome.error) == (Kind.DEFERRED, TRANSIENT.error)
    queue = await bench.deferrals.queue(M, "k")
    assert queue is not None
    assert queue.head == (7, 1_000, {"traceparent": "t"}, run.record)
    assert (queue.failures, queue.error) == (1, "ValueError: transient")
    assert bench.retry_timers("k")[0] - bench.wall in (1, 2)
    assert bench.partition.gave_back == [run]
    assert bench.loader.remembered == [7]
    assert bench.layer.deferred == 1
    assert counts(bench) == (0, 1)
    (line,) = caplog.messages
    assert "attempt 1 failed, deferred for" in line
    assert "offset 7" in line


@pytest.mark.parametrize("outcome", [PERMANENT, ABANDONED])
async def test_other_ends_stay_what_they_are(outcome: Any) -> None:
    bench = Deferring(Handler(outcome))
    assert await bench.defer(bench.message(1)) is outcome
    assert bench.calls == []
    assert counts(bench) == (0, 0)


async def test_what_comes_behind_joins_without_a_run_whatever_the_gate_says() -> None:
    bench = Deferring(defer_enabled=False)
    await bench.store(1)
    outcome = await bench.defer(bench.message(2))
    assert outcome.kind is Kind.DEFERRED
    assert bench.handler.seen == []
    assert bench.queue(M, "k") == [1, 2]
    assert bench.timers.calls == []
    assert counts(bench) == (0, 0)
    other = bench.message(3, key=b"other")
    assert await bench.defer(other) is SUCCESS
    excise = bench.message(4, value=None)
    assert (await bench.defer(excise)).kind is Kind.DEFERRED
    assert bench.queue(M, "k") == [1, 2, 4]


async def test_kinds_do_not_wait_for_each_other() -> None:
    bench = Deferring()
    await bench.store(1)
    assert await bench.defer(bench.timer(50)) is SUCCESS
    bench = Deferring()
    await bench.store(50, kind=T)
    assert await bench.defer(bench.message(1)) is SUCCESS
    assert (await bench.defer(bench.timer(60))).kind is Kind.DEFERRED
    assert bench.queue(T, "k") == [50, 60]


async def test_a_timer_is_deferred_and_not_counted() -> None:
    bench = Deferring(Handler(TRANSIENT))
    assert (await bench.defer(bench.timer(50))).kind is Kind.DEFERRED
    queue = await bench.deferrals.queue(T, "k")
    assert queue is not None
    assert queue.head == (50, 0, {"traceparent": "x"}, None)
    assert len(bench.retry_timers("k", TimerKind.DEFERRED_TIMER)) == 1
    assert counts(bench) == (0, 0)


async def test_joining_that_fails_is_tried_again_without_the_handler() -> None:
    bench = Deferring()
    await bench.store(1)
    bench.failing = {"deferred.append"}
    run = bench.message(2)
    outcome = await bench.defer(run)
    assert outcome.kind is Kind.TRANSIENT
    assert isinstance(outcome.error, StoreError)
    task = in_lane(bench.call, run)
    await asyncio.sleep(30)
    bench.failing = set()
    assert (await task).kind is Kind.DEFERRED
    assert bench.handler.seen == []
    assert bench.queue(M, "k") == [1, 2]


@pytest.mark.parametrize("call", ["timers.replace", "deferred.defer"])
async def test_a_store_that_fails_leaves_it_in_place(
    call: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Deferring(Handler(TRANSIENT, TRANSIENT, SUCCESS))
    bench.failing = {call}
    task = in_lane(bench.call, bench.message(1))
    await settle()
    assert "cannot be deferred, is tried again in place" in caplog.text
    assert await task is SUCCESS
    assert bench.handler.seen == [1, 1, 1]
    assert counts(bench) == (0, 1), "only the first attempt counts"
    assert not bench.deferrals.holds(M, "k")
    assert not bench.deferrals.uncertain.events


async def test_a_store_that_is_back_takes_it_at_the_next_failure() -> None:
    bench = Deferring(Handler(TRANSIENT))
    bench.failing = {"deferred.defer"}
    task = in_lane(bench.call, bench.message(1))
    await settle()
    bench.failing = set()
    assert (await task).kind is Kind.DEFERRED
    assert bench.handler.seen == [1, 1]


async def test_a_row_that_was_written_all_the_same_is_taken_out() -> None:
    bench = Deferring(Handler(TRANSIENT, SUCCESS))
    bench.lying = {"deferred.defer"}
    assert await in_lane(bench.call, bench.message(1)) is SUCCESS
    assert bench.queue(M, "k") == []
    assert bench.handler.seen == [1, 1]


@pytest.mark.parametrize("of", [{"defer_enabled": False}, {"defer_failure_threshold": 0.0}])
async def test_switched_off_it_is_retried_in_place(of: dict[str, Any]) -> None:
    bench = Deferring(Handler(TRANSIENT, SUCCESS), **of)
    assert await in_lane(bench.call, bench.message(1)) is SUCCESS
    assert bench.calls == []


async def test_a_partition_that_ends_defers_nothing_more() -> None:
    bench = Deferring(Handler(lambda _: setattr(bench.partition, "running", False) or TRANSIENT))
    assert await bench.defer(bench.message(1)) is TRANSIENT
    assert bench.calls == []


async def test_the_gate_counts_first_attempts_and_closes() -> None:
    bench = Deferring(Handler(TRANSIENT))
    ends = [await bench.defer(bench.message(n, key=b"%d" % n)) for n in range(SAMPLE)]
    assert {end.kind for end in ends[:-1]} == {Kind.DEFERRED}
    assert ends[-1] is TRANSIENT
    assert bench.gate.closed
    bench.handler.answers = [SUCCESS]
    again = bench.message(99)
    again.attempt = 1  # a later attempt of something that was not held back
    await bench.defer(again)
    assert bench.gate.closed
    assert counts(bench) == (0, SAMPLE)


async def test_closed_it_opens_when_what_was_held_back_recovers() -> None:
    bench = Deferring(Handler(TRANSIENT))
    for number in range(SAMPLE - 1):
        await bench.defer(bench.message(number, key=b"%d" % number))
    task = in_lane(bench.call, bench.message(99))
    await asyncio.sleep(100)
    assert bench.gate.closed
    bench.handler.answers = [SUCCESS]
    await asyncio.sleep(8.0)  # max_retry_delay
    assert not bench.gate.closed
    assert await task is SUCCESS


async def test_a_refusal_is_no_attempt_and_is_deferred_until_its_time() -> None:
    refusal = Refusal(ValueError("greedy"), 40.0)
    bench = Deferring(Handler(refusal))
    outcome = await bench.defer(bench.message(1))
    assert outcome.kind is Kind.DEFERRED
    queue = await bench.deferrals.queue(M, "k")
    assert queue is not None
    assert queue.failures == 0
    assert bench.retry_timers("k") == [bench.wall + 40]
    assert counts(bench) == (0, 0)


async def test_a_refusal_with_deferral_off_waits_in_place() -> None:
    refusal = Refusal(ValueError("greedy"), 40.0)
    bench = Deferring(Handler(refusal), defer_enabled=False)
    assert await bench.defer(bench.message(1)) is refusal


async def test_a_refusal_is_not_held_back_by_the_gate() -> None:
    bench = Deferring(Handler(TRANSIENT))
    for number in range(SAMPLE):
        await bench.defer(bench.message(number, key=b"%d" % number))
    refusal = Refusal(ValueError("greedy"), 40.0)
    bench.handler.answers = [refusal]
    assert await bench.defer(bench.message(99)) is refusal
    assert len(bench.gate._held) == 1


async def test_what_was_deferred_before_stays_so() -> None:
    bench = Deferring(Handler(TRANSIENT), defer_enabled=False)
    run = bench.retry_run()
    run.take_on(bench.message(1).record, bench.message(1).event)  # type: ignore[arg-type]
    outcome = await bench.defer(run)
    assert (outcome.kind, outcome.error) == (Kind.DEFERRED, TRANSIENT.error)
    bench.handler.answers = [Refusal(ValueError("greedy"), 40.0)]
    outcome = await bench.defer(run)
    assert isinstance(outcome, Postponed)
    assert outcome.until == 40.0
    assert bench.calls == []


async def test_retries_of_deferred_ones_are_not_counted() -> None:
    bench = Deferring(Handler(TRANSIENT, SUCCESS))
    run = bench.retry_run()
    for _ in range(2):
        run.take_on(bench.message(1).record, bench.message(1).event)  # type: ignore[arg-type]
        await bench.defer(run)
    assert counts(bench) == (0, 0)


async def test_a_hash_in_common_defers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prosody.deferral.knowledge.key_hash", len)
    bench = Deferring()
    await bench.store(1)
    assert await bench.defer(bench.message(2, key=b"x")) is SUCCESS
    assert bench.handler.seen == [2]
    assert DeferredKind.MESSAGE is M


class UglyError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def test_error_texts() -> None:
    assert error_text(ValueError("\ud800")) == "ValueError: \\ud800"
    assert error_text(UglyError()) == "UglyError"
    assert logging.getLogger("prosody.deferral") is not None
