"""A retry timer has fired: the queue of its key, through the stack, to its end or to the next failure."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from prosody.errors import BrokerError, StoreError
from prosody.middleware.redelivery import STORE_WAIT_S_MAX
from prosody.model.outcome import ABANDONED, SUCCESS, Kind, Refusal
from prosody.stores.protocol import TimerKind
from tests.middleware.deferring import Deferring, Handler, M, T, record
from tests.middleware.fakes import PERMANENT, TRANSIENT, in_lane
from tests.support import settle

RETRY = TimerKind.DEFERRED_MESSAGE


async def test_an_orphan_timer_finds_nothing() -> None:
    bench = Deferring()
    assert await bench.redelivery(bench.retry_run()) is SUCCESS
    assert bench.handler.seen == []


async def test_a_backlog_is_drained_in_order_without_a_timer() -> None:
    bench = Deferring()
    await bench.store(1, 2, 3)
    run = bench.retry_run()
    assert await in_lane(bench.redelivery, run) is SUCCESS
    assert bench.handler.runs == [(1, "FAILURE", 1), (2, "NORMAL", 1), (3, "NORMAL", 1)]
    assert bench.admitted == [1, 2, 3]
    assert bench.queue(M, "k") == []
    assert bench.timers.calls == []
    assert not bench.deferrals.holds(M, "k")
    assert bench.partition.gave_back[0] is run


async def test_a_head_that_fails_again_waits_longer_and_its_followers_wait() -> None:
    bench = Deferring(Handler(TRANSIENT))
    await bench.store(1, 2, failures=4)
    outcome = await in_lane(bench.redelivery, bench.retry_run())
    assert outcome.kind is Kind.DEFERRED
    assert bench.handler.seen == [1]
    assert bench.queue(M, "k") == [1, 2]
    queue = await bench.deferrals.queue(M, "k")
    assert queue is not None
    assert (queue.failures, queue.error) == (5, "ValueError: transient")
    ((name, key, time, kind),) = bench.timers.calls
    assert (name, key, kind) == ("replace", "k", RETRY)
    assert 8 <= time - bench.wall <= 16  # 2^4, and its half


async def test_a_follower_that_fails_is_at_the_head_then() -> None:
    bench = Deferring(Handler(SUCCESS, TRANSIENT))
    await bench.store(1, 2, 3, failures=9)
    assert (await in_lane(bench.redelivery, bench.retry_run())).kind is Kind.DEFERRED
    queue = await bench.deferrals.queue(M, "k")
    assert queue is not None
    assert (queue.head.position, queue.failures) == (2, 1)
    assert bench.handler.seen == [1, 2]


async def test_a_permanent_failure_ends_it() -> None:
    bench = Deferring(Handler(PERMANENT, SUCCESS))
    await bench.store(1, 2)
    assert await in_lane(bench.redelivery, bench.retry_run()) is SUCCESS
    assert bench.handler.seen == [1, 2]


async def test_a_shutdown_leaves_all_as_it_is() -> None:
    bench = Deferring(Handler(ABANDONED))
    await bench.store(1, 2, failures=3)
    assert await in_lane(bench.redelivery, bench.retry_run()) is ABANDONED
    assert bench.queue(M, "k") == [1, 2]
    assert bench.timers.calls == []
    bench.partition.running = False
    assert await in_lane(bench.redelivery, bench.retry_run()) is ABANDONED
    assert bench.handler.seen == [1]


async def test_what_ends_while_the_partition_does_is_taken_out() -> None:
    bench = Deferring(Handler(lambda _: setattr(bench.partition, "running", False) or SUCCESS))
    await bench.store(1, 2)
    assert await in_lane(bench.redelivery, bench.retry_run()) is ABANDONED
    assert bench.queue(M, "k") == [2]


async def test_a_refusal_is_no_failure() -> None:
    bench = Deferring(Handler(Refusal(ValueError("greedy"), 40.0)))
    await bench.store(1, failures=3)
    assert (await in_lane(bench.redelivery, bench.retry_run())).kind is Kind.DEFERRED
    queue = await bench.deferrals.queue(M, "k")
    assert queue is not None
    assert queue.failures == 3
    assert bench.retry_timers("k") == [bench.wall + 40]


async def test_nothing_is_run_again_because_it_cannot_be_taken_out() -> None:
    bench = Deferring()
    await bench.store(1, 2)
    bench.failing = {"deferred.advance"}
    task = in_lane(bench.redelivery, bench.retry_run())
    await asyncio.sleep(600)
    assert bench.handler.seen == [1]
    assert bench.calls.count("deferred.advance") >= 600 / STORE_WAIT_S_MAX
    bench.failing = set()
    assert await task is SUCCESS
    assert bench.handler.seen == [1, 2]


async def test_nor_when_its_lane_was_cancelled_meanwhile() -> None:
    bench = Deferring()
    await bench.store(1, 2)
    bench.failing = {"deferred.advance"}
    run = bench.retry_run()
    task = in_lane(bench.redelivery, run)
    await asyncio.sleep(5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    bench.failing = set()
    assert await in_lane(bench.redelivery, run) is SUCCESS
    assert bench.handler.seen == [1, 2]


async def test_what_an_owner_deferred_and_did_not_commit_waits_for_its_record() -> None:
    """The record comes again, and others of its key come before it."""
    bench = Deferring()
    await bench.store(2, 3)
    run = bench.retry_run()
    run.awaited = range(1, 3)
    outcome = await in_lane(bench.redelivery, run)
    assert outcome.kind is Kind.DEFERRED
    assert bench.handler.seen == []
    ((name, _, time, kind),) = bench.timers.calls
    assert (name, kind) == ("replace", RETRY)
    assert 1 <= time - bench.wall <= 2
    queue = await bench.deferrals.queue(M, "k")
    assert queue is not None
    assert queue.failures == 1, "it was not tried"
    for offset in (1, 2, 3):
        assert (await in_lane(bench.call, bench.message(offset))).kind is Kind.DEFERRED
    assert await in_lane(bench.redelivery, bench.retry_run()) is SUCCESS
    assert bench.handler.seen == [1, 2, 3]


async def test_a_shutdown_ends_the_wait_for_the_store() -> None:
    bench = Deferring()
    await bench.store(1)
    bench.failing = {"deferred.advance"}
    run = bench.retry_run()
    task = in_lane(bench.redelivery, run)
    await settle()
    bench.partition.running = False
    run.interrupt()
    assert await task is ABANDONED


@pytest.mark.parametrize("call", ["timers.replace", "deferred.failed", "deferred.queue"])
async def test_a_store_that_fails_is_asked_again(call: str) -> None:
    bench = Deferring(Handler(TRANSIENT))
    await bench.store(1)
    bench.failing = {call}
    task = in_lane(bench.redelivery, bench.retry_run())
    await asyncio.sleep(60)
    bench.failing = set()
    assert (await task).kind is Kind.DEFERRED
    assert bench.handler.seen == [1]
    assert len(bench.retry_timers("k")) == 1
    queue = await bench.deferrals.queue(M, "k")
    assert queue is not None
    assert queue.failures == 2


async def test_a_timer_is_run_with_its_own_time() -> None:
    bench = Deferring()
    await bench.store(50, 60, kind=T)
    assert await in_lane(bench.redelivery, bench.retry_run(kind=T)) is SUCCESS
    assert bench.handler.runs == [(50, "FAILURE", 1), (60, "NORMAL", 1)]
    assert bench.admitted == []
    assert bench.queue(T, "k") == []


async def test_records_are_loaded_and_forgotten() -> None:
    bench = Deferring(loads=True)
    await bench.store(1, 2)
    for queue in bench.state.queues.values():
        for stored in queue.values():
            stored.entries = {p: e._replace(content=None) for p, e in stored.entries.items()}
    assert await in_lane(bench.redelivery, bench.retry_run()) is SUCCESS
    assert bench.loader.loads == bench.loader.forgotten == bench.handler.seen == [1, 2]


async def loading(bench: Deferring, *positions: int) -> None:
    await bench.store(*positions)
    queue = bench.state.queues_of(bench.deferrals._segment, M)["k"]
    queue.entries = {p: e._replace(content=None) for p, e in queue.entries.items()}


async def test_a_record_that_cannot_be_read_now_counts_as_a_failure() -> None:
    bench = Deferring(loads=True)
    await loading(bench, 1)
    bench.loader.errors = [BrokerError("not now", retriable=True)]
    assert (await in_lane(bench.redelivery, bench.retry_run())).kind is Kind.DEFERRED
    assert bench.handler.seen == []
    queue = await bench.deferrals.queue(M, "k")
    assert queue is not None
    assert (queue.failures, queue.error) == (2, "BrokerError: not now")
    assert len(bench.retry_timers("k")) == 1


async def test_a_shutdown_ends_the_loading() -> None:
    bench = Deferring(loads=True)
    await loading(bench, 1)
    bench.loader.wait = asyncio.get_running_loop().create_future()
    run = bench.retry_run()
    task = in_lane(bench.redelivery, run)
    await settle()
    bench.partition.running = False
    run.interrupt()
    assert await task is ABANDONED
    assert bench.loader.wait.cancelled()


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (None, "there is no record"),
        (record(1, key=b"other"), "another key"),
        (record(1, timestamp=2_000), "another timestamp"),
        (record(1, value=b"{"), "cannot be decoded"),
        (record(1, key=b"\xff"), "cannot be decoded"),
    ],
)
async def test_a_record_that_is_gone_is_told_and_passed(
    found: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Deferring(loads=True)
    await loading(bench, 1, 2)
    bench.loader.records[1] = found
    assert await in_lane(bench.redelivery, bench.retry_run()) is SUCCESS
    assert bench.handler.seen == [2]
    assert bench.gone == [("k", 1, 1_000)]
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert reason in line
    assert "position 1" in line


async def test_it_is_not_passed_before_it_is_told() -> None:
    bench = Deferring(loads=True)
    await loading(bench, 1)
    bench.loader.records.clear()
    told = bench.write_gone

    async def interrupted(*of: Any) -> bool:
        bench.partition.running = False
        return await told(*of)

    bench.write_gone = interrupted  # type: ignore[method-assign]
    assert await in_lane(bench.redelivery, bench.retry_run()) is ABANDONED
    assert bench.queue(M, "k") == [1]


async def test_in_another_mode_it_stays_stored() -> None:
    bench = Deferring()
    await bench.store(1)
    bench.partition.deferrals = None
    assert await in_lane(bench.redelivery, bench.retry_run()) is ABANDONED
    assert bench.queue(M, "k") == [1]


async def test_a_closed_partition_writes_nothing() -> None:
    bench = Deferring(Handler(lambda _: _close(bench) or SUCCESS))
    await bench.store(1)
    assert await in_lane(bench.redelivery, bench.retry_run()) is ABANDONED
    assert bench.queue(M, "k") == [1]
    with pytest.raises(StoreError):
        await bench.deferrals.failed(M, "k", 1, "")


def _close(bench: Deferring) -> None:
    bench.partition.running = False
    bench.partition.closed = True
    bench.deferrals.close()
