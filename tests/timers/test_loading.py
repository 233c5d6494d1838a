"""Loading ahead: what is in memory, what races with a page on its way, and stores that are down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from prosody.errors import StoreDownError, StoreError
from prosody.stores.memory import MemoryStoreState
from prosody.stores.protocol import Place, Segment, StoredTimer
from prosody.timers import memory as timers_memory
from prosody.timers.memory import LOADED_MAX
from tests.support import settle
from tests.timers.support import APP, Hook, Stage, place
from tests.timers.world import SEGMENT, START, Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """With a store, but not started yet."""
    stage = Stage(limit=100)
    yield stage
    stage.state.on_call = stage.state.on_done = None
    stage.state.restore()
    await stage.stop()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for 8 of each kind, loaded by 2."""
    monkeypatch.setattr(timers_memory, "LOADED_MAX", 24)
    monkeypatch.setattr(timers_memory, "PAGE", 2)
    monkeypatch.setattr("prosody.timers.loader.PAGE", 2)


class Delay:
    """Holds one call of the store up, before its effect or after it, until it is let go."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.reached = asyncio.Event()
        self._go = asyncio.Event()
        self._used = False

    def __call__(self, name: str) -> Any:
        if name != self.name or self._used:
            return None
        self._used = True
        return self._wait()

    async def _wait(self) -> None:
        self.reached.set()
        await self._go.wait()

    async def let_go(self) -> None:
        self._go.set()
        await settle()


async def test_what_an_earlier_owner_has_stored_fires(stage: Stage) -> None:
    await stage.put("a", -5, 3, 7_000)
    await stage.put("b", 4)
    await stage.start()
    assert stage.timers.pending == 3
    await stage.handle_all(7_001)
    assert stage.seen == [("a", -5), ("a", 3), ("b", 4), ("a", 7_000)]
    assert all(
        0.0 <= at - max(t, 0) <= 0.3 for at, (_, t) in zip(stage.at, stage.seen, strict=True)
    )
    assert stage.store.loads < 40


async def test_the_number_of_partitions_is_told_when_it_changes(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    for partitions, lines in ((3, 0), (3, 0), (5, 1), (5, 1), (3, 2)):
        await stage.owner().open(partitions)
        assert len(caplog.records) == lines
    assert "topic 'orders' had 3 partitions, now it has 5" in caplog.text
    stage.state.outage()
    with pytest.raises(StoreDownError):
        await stage.owner().open(3)


async def test_what_is_set_before_the_first_page_has_come_is_not_lost(stage: Stage) -> None:
    await stage.timers.open(3)
    await stage.set("before", 5)
    stage.state.on_done = delay = Delay("timers.load")
    stage.timers.start()
    await delay.reached.wait()
    await stage.set("during", 6)
    await stage.set("far", 5_000)
    await delay.let_go()
    await stage.handle_all(5_010)
    assert stage.seen == [("before", 5), ("during", 6), ("far", 5_000)]


@pytest.mark.parametrize("how", ["unschedule", "clear", "replace"])
async def test_what_is_removed_during_a_load_does_not_come_back(stage: Stage, how: str) -> None:
    await stage.put("a", 5)
    await stage.timers.open(3)
    stage.state.on_done = delay = Delay("timers.load")
    stage.timers.start()
    await delay.reached.wait()  # the page has been read
    if how == "unschedule":
        await stage.unset("a", 5)
    elif how == "clear":
        assert await stage.clear("a") == [5]
    else:
        assert await stage.replace("a", 9) == [5]
    await delay.let_go()
    await stage.handle_all(100)
    assert stage.seen == ([("a", 9)] if how == "replace" else [])


async def test_what_is_removed_and_set_again_during_a_load_is_there(stage: Stage) -> None:
    await stage.put("a", 5)
    await stage.timers.open(3)
    stage.state.on_done = delay = Delay("timers.load")
    stage.timers.start()
    await delay.reached.wait()
    await stage.unset("a", 5)
    await stage.set("a", 5)
    await delay.let_go()
    await stage.handle_all(100)
    assert stage.seen == [("a", 5)]


async def test_a_cancel_that_fails_during_a_load_leaves_the_timer(stage: Stage) -> None:
    await stage.put("a", 5)
    await stage.timers.open(3)
    stage.state.on_done = delay = Delay("timers.load")
    stage.timers.start()
    await delay.reached.wait()
    stage.state.on_call = Hook("timers.remove", _fail, 1)
    with pytest.raises(StoreError):
        await stage.unset("a", 5)
    await delay.let_go()
    await stage.handle_all(100)
    assert stage.seen == [("a", 5)]


async def test_what_a_failed_call_has_removed_does_not_come_back_after_a_clear(
    stage: Stage,
) -> None:
    """The page was read before both; the clear finds nothing that it could remember."""
    await stage.put("a", 5)
    await stage.timers.open(3)
    stage.state.on_done = delay = Delay("timers.load")
    stage.timers.start()
    await delay.reached.wait()
    stage.state.on_done = Hook("timers.remove", _fail, 1)
    with pytest.raises(StoreError):
        await stage.unset("a", 5)
    assert await stage.clear("a") == []
    await stage.set("a", 7)
    await delay.let_go()
    await stage.handle_all(100)
    assert stage.seen == [("a", 7)]


async def test_a_replacement_that_took_long_is_there_after_a_page(stage: Stage) -> None:
    """It was stored before the page was read; the rest of its call ends while that is on its way."""
    await stage.start()
    await stage.set("a", 1, 2)
    await stage.until(1.5)
    assert stage.fired[0].begin()
    removes = Delay("timers.remove")
    stage.state.on_call = removes
    call = asyncio.create_task(stage.replace("a", 700))
    await removes.reached.wait()
    stage.state.on_done = delay = Delay("timers.load")
    await asyncio.wait_for(delay.reached.wait(), 1_000)
    await removes.let_go()
    assert await call == [2]
    await delay.let_go()
    assert await stage.fired[0].end()
    await stage.handle_all(1_000)
    assert stage.seen == [("a", 1), ("a", 700)]


async def test_a_page_that_comes_while_a_cancel_is_under_way(stage: Stage) -> None:
    await stage.put("a", 5)
    await stage.timers.open(3)
    stage.state.on_call = delay = Delay("timers.remove")
    cancel = asyncio.create_task(stage.unset("a", 5))
    await delay.reached.wait()
    stage.timers.start()
    await settle()
    assert stage.timers.pending == 1, "the cancel may fail yet"
    await delay.let_go()
    await cancel
    assert stage.timers.pending == 0
    await stage.handle_all(100)
    assert stage.seen == []


async def test_one_that_fires_and_ends_during_a_load_fires_once(stage: Stage) -> None:
    await stage.start()
    await stage.set("a", 350)
    await stage.until(299.9)
    stage.state.on_done = delay = Delay("timers.load")
    await asyncio.wait_for(delay.reached.wait(), 100)  # the next stretch of time
    await stage.set("b", 700)  # beyond what is loaded, in the stretch that is
    stage.runtime.offset_s = 500.0
    await asyncio.sleep(40)
    assert stage.seen == [("a", 350), ("b", 700)]
    for timer in stage.fired:
        assert timer.begin()
        assert await timer.end()
    await delay.let_go()
    await stage.handle_all(1_500)
    assert len(stage.fired) == 2


@pytest.mark.usefixtures("small")
async def test_many_in_one_second_are_loaded_in_the_stores_own_order() -> None:
    """The pages' borders lie inside a second, whose order is that of the store."""
    stage = Stage(limit=100)
    keys = [f"{n}{m}" for n in range(6) for m in range(5)]
    for key in keys:
        await stage.put(key, 5)
    await stage.start()
    await stage.set("31x", 5)
    await stage.set("00x", 5)
    await stage.handle_all(20)
    assert sorted(stage.seen) == sorted((key, 5) for key in [*keys, "31x", "00x"])
    assert stage.stored() == []
    await stage.stop()


@pytest.mark.usefixtures("small")
async def test_a_full_memory_is_filled_again_as_it_empties() -> None:
    stage = Stage(limit=100)
    for n in range(60):
        await stage.put(f"k{n % 7}", 10 + n)
    await stage.start()
    assert stage.timers.pending <= 24
    await stage.handle_all(100)
    assert [time for _, time in stage.seen] == list(range(10, 70))
    assert max(at - t for at, (_, t) in zip(stage.at, stage.seen, strict=True)) <= 0.3
    await stage.stop()


@pytest.mark.usefixtures("small")
async def test_an_earlier_timer_has_room_in_a_full_memory() -> None:
    stage = Stage(limit=100)
    for n in range(20):
        await stage.put("far", 100 + n)
    await stage.start()
    full = stage.timers.pending
    for n in range(20):
        await stage.set("near", 5 + n)
        assert stage.timers.pending <= 8
    assert full <= 8
    await stage.handle_all(200)
    assert [time for _, time in stage.seen] == [*range(5, 25), *range(100, 120)]
    assert max(at - t for at, (_, t) in zip(stage.at, stage.seen, strict=True)) <= 0.3
    await stage.stop()


@pytest.mark.usefixtures("small")
async def test_a_kind_with_a_backlog_holds_up_no_other_kind() -> None:
    """Neither by its places nor by its room in memory."""
    stage = Stage(limit=1)
    app, message, _ = stage.kinds
    for n in range(40):
        await stage.put(f"k{n}", 1, kind=app)
    await stage.put("other", 3, kind=message)
    await stage.start()
    await stage.until(3.3)
    assert stage.seen == [(stage.fired[0].key, 1), ("other", 3)]
    await stage.stop()


class Plenty:
    """A store of a million timers: those before ``start`` are there, one after the other."""

    def __init__(self, first: int, per_second: int) -> None:
        self.state = MemoryStoreState()
        self.faults: list[str] = []
        self.loads = 0
        self.rows = 0
        self._first = first
        self._per_second = per_second
        self._gone: set[Place] = set()

    async def open(self, segment: Segment, partitions: int) -> None:
        return None

    async def load(
        self, segment: Segment, after: Place | None, until: int, limit: int
    ) -> Sequence[StoredTimer]:
        self.loads += 1
        number = 0
        if after is not None:
            number = max(0, (after.time - self._first) * self._per_second)
            if after.key:
                number = int(after.key) + 1
        found: list[StoredTimer] = []
        while len(found) < limit and number < 1_000_000:
            time = self._first + number // self._per_second
            if time > until:
                break
            found.append(StoredTimer(time, APP, f"{number:07}", {}))
            number += 1
        self.rows += len(found)
        return [timer for timer in found if timer.place not in self._gone]

    async def remove(self, segment: Segment, place: Place) -> None:
        self._gone.add(place)

    async def passed(self, segment: Segment, before: int) -> None:
        return None


async def test_a_million_timers_a_year_ahead_cost_nothing() -> None:
    store = Plenty(START + 31_536_000, 100)
    stage = await Stage(store=store).start()
    await stage.until(3_600)
    assert (stage.timers.pending, store.rows, stage.fired) == (0, 0, [])
    assert store.loads < 15
    await stage.stop()


async def test_of_a_million_timers_soon_a_bounded_number_is_in_memory() -> None:
    store = Plenty(START + 30, 20_000)
    stage = await Stage(limit=500, store=store, kinds=(APP,)).start()
    most = stage.timers.pending
    assert 5_000 < most <= LOADED_MAX
    await stage.until(31)
    done = 0
    while done < 15_000:
        assert len(stage.fired) - done <= 500
        for timer in stage.fired[done:]:
            done += 1
            assert timer.begin()
            assert await timer.end()
        await settle()
        most = max(most, stage.timers.pending)
    assert most <= LOADED_MAX + 500
    assert [timer.key for timer in stage.fired] == [f"{n:07}" for n in range(len(stage.fired))]
    assert store.rows < done + LOADED_MAX + 2_000
    await stage.stop()


async def test_the_store_is_told_what_need_not_be_looked_at(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    passed = Store.passed

    async def watched(self: Store, segment: Segment, before: int) -> None:
        told.append(before - START)
        await passed(self, segment, before)

    monkeypatch.setattr(Store, "passed", watched)
    await stage.start()
    await stage.until(1_000)
    assert told == [], "nothing was removed"
    await stage.set("a", 1_010, 1_020, 1_030)
    await stage.set("b", 1_040)
    await stage.handle_all(1_035)
    await stage.set("c", 1_036)
    await stage.until(1_200)
    assert told[-1] == 1_036, "one is handed out, and not done with"
    assert stage.store.before == START + 1_036
    c = next(timer for timer in stage.fired if timer.key == "c")
    c.abort()
    await stage.unset("b", 1_040)
    await stage.until(2_000)
    assert told[-1] == 1_036, "one was aborted and stays stored"
    await stage.next_owner()
    assert stage.seen[-1] == ("c", 1_036)
    await stage.set("d", -5)  # far before what was told
    await stage.handle_all(2_500)
    assert told[-1] >= 2_000.0


async def test_what_was_set_long_before_anything_loaded_fires_at_once(stage: Stage) -> None:
    await stage.start()
    await stage.set("a", 400)
    await stage.handle_all(1_000)
    await stage.set("b", -50_000)
    await stage.handle_all(1_001)
    assert stage.seen == [("a", 400), ("b", -50_000)]


def _fail() -> None:
    raise StoreError("no", retriable=True)


async def test_while_the_store_is_down_memory_goes_on_and_loading_comes_back(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.put("a", 320)
    await stage.put("far", 900)
    await stage.start()
    assert stage.timers.problem is None
    await stage.until(250)
    stage.state.outage("the power is off")
    await stage.until(1_500)
    assert stage.seen == [("a", 320)]
    assert stage.timers.problem == (
        "timers cannot be loaded, topic 'orders' partition 0: the power is off"
    )
    failing = [r for r in caplog.records if "trying again until" in r.getMessage()]
    assert {r.levelno for r in failing} == {logging.WARNING}
    assert 15 <= len(failing) <= 21, "one a minute, not one for each try"
    stage.state.restore()
    await asyncio.sleep(2.0)
    assert stage.seen == [("a", 320), ("far", 900)]
    assert stage.timers.problem is None
    assert "timers are loaded again, topic 'orders' partition 0, after" in caplog.text


async def test_loads_that_fail_wait_longer_and_longer(stage: Stage) -> None:
    stage.state.on_call = hook = Hook("timers.load", _fail)
    await stage.timers.open(3)
    stage.timers.start()
    await asyncio.sleep(600)
    assert 15 < hook.calls < 100
    stage.timers.stop()
    assert stage.timers.problem is None
    await stage.timers.settled()


async def test_a_fault_of_ours_is_told_and_loading_goes_on(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.put("a", 5)
    stage.state.on_call = Hook("timers.load", lambda: 1 / 0, 3)
    await stage.start()
    assert stage.timers.problem is not None
    await stage.handle_all(60)
    assert stage.seen == [("a", 5)]
    assert [r.levelno for r in caplog.records if "internal fault" in r.message] == [50, 50, 50]
    assert stage.timers.problem is None


async def test_a_schedule_that_failed_during_a_load_is_looked_for(stage: Stage) -> None:
    await stage.timers.open(3)
    stage.state.on_done = delay = Delay("timers.load")
    stage.timers.start()
    await delay.reached.wait()
    stage.state.on_done = Hook("timers.add", _fail, 1)
    with pytest.raises(StoreError):
        await stage.set("a", 5)
    assert stage.stored() == [("a", 5)]
    await delay.let_go()
    await stage.handle_all(10)
    assert stage.seen == [("a", 5)]


async def test_the_stop_does_not_wait_for_a_page(stage: Stage) -> None:
    await stage.timers.open(3)
    stage.state.on_call = delay = Delay("timers.load")
    stage.timers.start()
    await delay.reached.wait()
    stage.timers.stop()
    await asyncio.wait_for(stage.timers.settled(), 0.001)


async def test_the_stop_waits_for_what_the_store_is_being_told(stage: Stage) -> None:
    await stage.start()
    await stage.set("a", 1)
    await stage.handle_all(10)
    stage.state.on_call = delay = Delay("timers.passed")
    await asyncio.wait_for(delay.reached.wait(), 1_000)
    stage.timers.stop()
    settled = asyncio.create_task(stage.timers.settled())
    await settle()
    assert not settled.done()
    loads = stage.store.loads
    await delay.let_go()
    await settled
    assert stage.store.loads == loads


async def test_three_owners_one_after_the_other(stage: Stage) -> None:
    await stage.start()
    await stage.set("a", 10, 20, 30)
    await stage.handle_all(15)
    await stage.next_owner()
    await stage.unset("a", 20)
    await stage.next_owner(settled=False)
    await stage.handle_all(40)
    assert stage.seen == [("a", 10), ("a", 30)]
    assert place("a", 30) not in stage.store.places
    assert stage.store.places == set()
    assert SEGMENT.partition == 0
