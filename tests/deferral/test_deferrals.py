"""The queues of a partition: what is asked, in which order it is written, and what a failure leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from prosody.deferral import knowledge
from prosody.deferral.uncertain import LONGEST_WAIT_S
from prosody.errors import StoreError
from prosody.stores.protocol import Deferred, DeferredKind, TimerKind
from tests.deferral.fakes import SEGMENT, Bench
from tests.support import settle

M, T = DeferredKind.MESSAGE, DeferredKind.TIMER
RETRY = TimerKind.DEFERRED_MESSAGE


def entry(position: int) -> Deferred:
    return Deferred(position, 1_000, {})


async def deferred(bench: Bench, key: str = "a", position: int = 5) -> None:
    await bench.deferrals.defer(M, key, entry(position), "why", bench.wall + 1)


async def test_the_timer_is_there_before_the_row() -> None:
    bench = Bench()
    assert not bench.deferrals.holds(M, "a")
    await deferred(bench)
    assert bench.calls == ["timers.replace", "deferred.defer"]
    assert bench.deferrals.holds(M, "a")
    assert not bench.deferrals.holds(T, "a")
    assert bench.deferrals.keys == {M: 1, T: 0}
    assert bench.deferrals.oldest is not None
    assert not bench.deferrals.uncertain.events


async def test_what_joins_asks_nothing() -> None:
    bench = Bench()
    await deferred(bench)
    bench.calls.clear()
    assert await bench.deferrals.append(M, "a", entry(6), 0)
    assert bench.calls == ["deferred.append"]
    assert bench.queue(M, "a") == [5, 6]


async def test_a_refused_one_has_not_failed() -> None:
    bench = Bench()
    await bench.deferrals.defer(M, "a", entry(5), None, bench.wall + 1)
    queue = await bench.deferrals.queue(M, "a")
    assert queue is not None
    assert (queue.head.position, queue.failures) == (5, 0)
    assert bench.deferrals.holds(M, "a")


async def successor(bench: Bench, cache_size: int = 8) -> Bench:
    """The next owner."""
    new = Bench(cache_size, bench.state)
    await new.deferrals.open()
    return new


async def test_the_next_owner_knows_the_keys_and_looks_once_for_their_timers() -> None:
    bench = Bench()
    for number in range(3):
        await deferred(bench, f"key {number}")
    bench = await successor(bench)
    assert bench.deferrals.keys == {M: 3, T: 0}
    assert all(bench.deferrals.holds(M, f"key {number}") for number in range(3))
    assert not bench.deferrals.holds(M, "another")
    bench.calls.clear()
    for position in (6, 7):
        assert await bench.deferrals.append(M, "key 0", entry(position), 0)
    assert bench.calls == [
        "deferred.queue", "timers.times", "deferred.append", "deferred.append"
    ]  # fmt: skip


async def test_a_retry_timer_that_is_missing_is_set() -> None:
    bench = Bench()
    await deferred(bench)
    bench.state.timers.clear()
    bench = await successor(bench)
    await bench.deferrals.append(M, "a", entry(6), bench.wall + 1)
    assert bench.retry_timers("a") == [bench.wall + 1]


async def test_a_hash_alone_defers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knowledge, "key_hash", len)
    bench = Bench()
    await deferred(bench, "a")
    assert bench.deferrals.holds(M, "b")
    assert not await bench.deferrals.append(M, "b", entry(6), 0)
    assert not bench.deferrals.holds(M, "b")
    await deferred(bench, "b", 7)
    assert await bench.deferrals.done(M, "a", 5) is None
    assert not bench.deferrals.holds(M, "a")
    assert bench.deferrals.holds(M, "b"), "the other one's end must not let it overtake"


async def test_a_small_cache_asks_again_and_holds_all() -> None:
    bench = Bench(cache_size=1)
    for number in range(3):
        await deferred(bench, f"key {number}")
    assert await bench.deferrals.append(M, "key 0", entry(6), 0)
    for number in range(3):
        while await bench.deferrals.queue(M, f"key {number}"):
            head = await bench.deferrals.queue(M, f"key {number}")
            assert head is not None
            await bench.deferrals.done(M, f"key {number}", head.head.position)
    assert bench.deferrals.keys == {M: 0, T: 0}


async def test_the_last_one_frees_the_key() -> None:
    bench = Bench()
    await deferred(bench)
    await bench.deferrals.append(M, "a", entry(6), 0)
    await bench.deferrals.failed(M, "a", 3, "again")
    left = await bench.deferrals.done(M, "a", 5)
    assert left is not None
    assert (left.head.position, left.failures) == (6, 0)
    assert bench.deferrals.holds(M, "a")
    assert await bench.deferrals.done(M, "a", 6) is None
    assert not bench.deferrals.holds(M, "a")


async def test_drop_leaves_neither_rows_nor_timer() -> None:
    bench = Bench()
    await deferred(bench)
    await bench.deferrals.append(M, "a", entry(6), 0)
    assert await bench.deferrals.positions(M, "a") == [5, 6]
    await bench.deferrals.drop(M, "a")
    assert bench.queue(M, "a") == []
    assert bench.retry_timers("a") == []
    assert not bench.deferrals.holds(M, "a")
    assert await bench.deferrals.positions(M, "a") == []


async def test_no_row_without_a_timer() -> None:
    bench = Bench()
    bench.failing = {"timers.replace"}
    with pytest.raises(StoreError):
        await deferred(bench)
    assert bench.calls == ["timers.replace"]
    assert not bench.deferrals.uncertain.events


async def test_what_may_be_stored_is_taken_out_when_it_has_finished_in_place() -> None:
    bench = Bench()
    bench.lying = {"deferred.defer"}
    with pytest.raises(StoreError):
        await deferred(bench)
    assert bench.queue(M, "a") == [5]
    assert not bench.deferrals.holds(M, "a"), "its followers may run once it has finished in place"
    await bench.deferrals.finished_in_place(M, "a", 5)
    assert bench.queue(M, "a") == []
    assert not bench.deferrals.uncertain.events
    await bench.deferrals.finished_in_place(M, "a", 5)


async def test_it_is_taken_out_from_among_its_followers() -> None:
    bench = Bench()
    bench.lying = {"deferred.defer"}
    with pytest.raises(StoreError):
        await deferred(bench)
    bench.lying = set()
    bench.failing = {"deferred.drop"}
    await bench.deferrals.finished_in_place(M, "a", 5)
    await deferred(bench, "a", 6)
    assert bench.queue(M, "a") == [5, 6]
    queue = await bench.deferrals.queue(M, "a")
    assert queue is not None
    assert queue.head.position == 6, "what has finished is not at the head for anybody"
    assert bench.queue(M, "a") == [6]
    bench.deferrals.close()
    await settle()


async def test_it_is_taken_out_in_the_background_when_the_store_is_back() -> None:
    bench = Bench()
    bench.lying = {"deferred.defer"}
    with pytest.raises(StoreError):
        await deferred(bench)
    bench.state.outage("down")
    await bench.deferrals.finished_in_place(M, "a", 5)
    await asyncio.sleep(600)
    assert bench.deferrals.problem is not None
    assert bench.queue(M, "a") == [5]
    bench.state.restore()
    await asyncio.sleep(LONGEST_WAIT_S)
    assert bench.queue(M, "a") == []
    assert bench.deferrals.problem is None


async def test_one_deferred_anew_is_not_what_was_left_of_the_old_one() -> None:
    """A timer that finished in place, was set again for the same second, and failed again."""
    bench = Bench()
    bench.lying = {"deferred.defer"}
    with pytest.raises(StoreError):
        await deferred(bench)
    bench.lying = set()
    bench.failing = {"deferred.drop", "deferred.advance"}
    await bench.deferrals.finished_in_place(M, "a", 5)
    written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    bench.state.on_done = lambda name: written if name == "deferred.defer" else None
    again = asyncio.create_task(deferred(bench))
    await settle()
    bench.failing = set()
    await asyncio.sleep(2 * LONGEST_WAIT_S)  # the removal waits for its turn behind the new one
    written.set_result(None)
    await again
    await asyncio.sleep(2 * LONGEST_WAIT_S)
    assert bench.queue(M, "a") == [5]


async def test_a_second_try_makes_it_certain() -> None:
    bench = Bench()
    bench.lying = {"deferred.defer"}
    with pytest.raises(StoreError):
        await deferred(bench)
    bench.lying = set()
    await deferred(bench)
    await bench.deferrals.finished_in_place(M, "a", 5)
    assert bench.queue(M, "a") == [5], "it is deferred: only its retry ends it"


async def test_cancelled_while_it_is_written_it_is_deferred_all_the_same() -> None:
    bench = Bench()
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def slow(name: str) -> Any:
        return gate if name == "deferred.defer" else None

    bench.state.on_done = slow
    task = asyncio.create_task(deferred(bench))
    await settle()
    task.cancel()
    await settle()
    assert not bench.deferrals.holds(M, "a")
    gate.set_result(None)
    await settle()
    assert bench.deferrals.holds(M, "a")
    # It comes again, and joins itself.
    assert await bench.deferrals.append(M, "a", entry(5), 0)
    assert bench.queue(M, "a") == [5]
    assert not bench.deferrals.uncertain.events


async def test_what_is_done_never_comes_again_though_it_cannot_be_taken_out() -> None:
    bench = Bench()
    await deferred(bench)
    await bench.deferrals.append(M, "a", entry(6), 0)
    bench.failing = {"deferred.advance"}
    with pytest.raises(StoreError):
        await bench.deferrals.done(M, "a", 5)
    bench.failing = set()
    queue = await bench.deferrals.queue(M, "a")
    assert queue is not None
    assert queue.head.position == 6


async def test_closed_it_writes_nothing() -> None:
    bench = Bench()
    await deferred(bench)
    bench.deferrals.close()
    bench.calls.clear()
    for call in (
        deferred(bench, "b"),
        bench.deferrals.done(M, "a", 5),
        bench.deferrals.append(M, "a", entry(6), 0),
        bench.deferrals.failed(M, "a", 2, ""),
        bench.deferrals.drop(M, "a"),
    ):
        with pytest.raises(StoreError, match="given up"):
            await call
    assert bench.calls == []


async def test_opening_may_fail_and_be_tried_again() -> None:
    bench = Bench()
    await deferred(bench)
    bench = await successor(bench)
    bench.failing = {"deferred.hashes"}
    with pytest.raises(StoreError):
        await bench.deferrals.open()
    bench.failing = set()
    await bench.deferrals.open()
    assert bench.deferrals.keys == {M: 1, T: 0}
    assert bench.state.queues_of(SEGMENT, M).keys() == {"a"}
