"""When timers fire, and how many at once."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from prosody.errors import StoreError
from tests.support import settle
from tests.timers.support import APP, MESSAGE, TIMER, Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = await Stage().start()
    yield stage
    await stage.stop()


async def test_a_timer_fires_at_its_second_and_not_before(stage: Stage) -> None:
    await asyncio.sleep(0.3)
    await stage.set("a", 10)
    await stage.until(9.999)
    assert stage.fired == []
    await stage.until(10.01)
    assert stage.seen == [("a", 10)]
    assert 10.0 <= stage.at[0] < 10.01
    assert (stage.fired[0].kind, stage.fired[0].trace) == (APP, {"traceparent": "00-1"})


async def test_the_past_fires_at_once(stage: Stage) -> None:
    await stage.until(100)
    await stage.set("a", -1_000)
    await stage.set("b", 100)
    await settle()
    assert stage.seen == [("a", -1_000), ("b", 100)]
    assert stage.now == 100.0


async def test_timers_fire_in_the_order_of_their_times(stage: Stage) -> None:
    for key, time in (("c", 3), ("a", 9), ("b", 1), ("d", 5)):
        await stage.set(key, time, kind=APP if key < "c" else MESSAGE)
    stage.runtime.offset_s = 60.0  # all are due at once
    await stage.until(130)
    assert [time for _, time in stage.seen] == [1, 3, 5, 9]


async def test_an_earlier_timer_moves_the_clock_forward(stage: Stage) -> None:
    await stage.set("a", 20)
    await stage.set("b", 5)
    await stage.until(6)
    assert stage.seen == [("b", 5)]


async def test_a_wall_clock_set_forward_is_noticed_within_a_minute(stage: Stage) -> None:
    await stage.set("a", 500)
    await stage.until(40)
    stage.runtime.offset_s = 1_000.0
    await asyncio.sleep(60)
    assert stage.seen == [("a", 500)]


async def test_a_wall_clock_set_forward_far_is_noticed_within_a_minute(stage: Stage) -> None:
    await stage.set("a", 100_000)
    assert stage.timers.pending == 0
    stage.runtime.offset_s = 200_000.0
    await asyncio.sleep(61)
    assert stage.seen == [("a", 100_000)]


async def test_a_wall_clock_set_back_makes_nothing_early(stage: Stage) -> None:
    await stage.set("a", 20)
    await stage.until(19)
    stage.runtime.offset_s = -100.0
    await asyncio.sleep(100)
    assert stage.fired == []
    await asyncio.sleep(2)
    assert stage.seen == [("a", 20)]


async def test_a_loop_that_wakes_early_makes_nothing_early(stage: Stage) -> None:
    await stage.set("a", 10)
    await stage.until(9)
    stage.runtime.offset_s = -0.0004  # the wall clock goes a little slower than the loop's
    await stage.until(11)
    assert len(stage.at) == 1
    assert 10.0 <= stage.at[0] < 10.01


async def test_one_timer_of_a_key_and_kind_at_a_time(stage: Stage) -> None:
    await stage.set("hot", 1, 2, 3)
    await stage.set("hot", 1, kind=TIMER)
    await stage.set("cool", 2)
    await stage.until(5)
    assert stage.seen == [("hot", 1), ("hot", 1), ("cool", 2)]
    assert {stage.fired[0].kind, stage.fired[1].kind} == {APP, TIMER}
    first = next(timer for timer in stage.fired if timer.kind is APP)
    assert first.begin()
    await settle()
    assert len(stage.fired) == 3, "the next follows when the first has ended"
    assert await first.end()
    await settle()
    assert stage.seen[3:] == [("hot", 2)]
    stage.fired[3].abort()
    await settle()
    assert stage.seen[4:] == [("hot", 3)]


async def test_so_many_of_a_kind_are_out_at_once_and_kinds_hold_up_none_other() -> None:
    stage = await Stage(limit=2).start()
    for key in "abcd":
        await stage.set(key, 1)
    await stage.set("a", 2, kind=MESSAGE)
    await stage.set("z", 3, kind=TIMER)
    await stage.until(5)
    assert [(t.key, t.kind) for t in stage.fired] == [
        ("a", APP), ("b", APP), ("a", MESSAGE), ("z", TIMER)
    ]  # fmt: skip
    assert stage.fired[1].begin()
    await settle()
    assert len(stage.fired) == 4
    await stage.fired[1].end()
    await settle()
    assert stage.seen[4:] == [("c", 1)]
    await stage.unset("c", 1)
    await settle()
    assert len(stage.fired) == 5, "cancelled, but its partition has it in its queue"
    assert not stage.fired[4].begin()
    await settle()
    assert stage.seen[5:] == [("d", 1)]
    await stage.stop()


async def test_kinds_that_nobody_asked_for_are_left_alone() -> None:
    stage = Stage(kinds=(APP,))
    await stage.put("a", 5, kind=MESSAGE)
    await stage.put("b", 5)
    await stage.start()
    await stage.timers.schedule("c", 1_700_000_006, TIMER, {})
    await stage.handle_all(5_000)
    assert stage.seen == [("b", 5)]
    assert stage.stored() == [("a", 5), ("c", 6)]
    await stage.stop()


async def test_a_timer_that_is_not_taken_stays_stored_and_harms_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage()
    fire = stage.fire

    def fails(timer: object) -> None:
        if not stage.at:
            stage.at.append(0.0)
            raise ValueError("no")
        fire(timer)  # type: ignore[arg-type]

    stage.fire = fails  # type: ignore[method-assign]
    stage.timers = stage.owner()
    await stage.start()
    await stage.set("a", 1)
    await stage.set("b", 1)
    await stage.until(3)
    assert stage.seen == [("b", 1)]
    assert stage.stored() == [("a", 1), ("b", 1)]
    assert [r.levelno for r in caplog.records] == [logging.CRITICAL]
    await stage.next_owner()
    assert stage.seen[1:] == [("a", 1), ("b", 1)], "at the next owner both fire"
    await stage.stop()


async def test_what_is_held_fires_nothing_but_calls_and_ends_work(stage: Stage) -> None:
    await stage.set("a", 1, 2)
    await stage.set("b", 1)
    await stage.until(1.5)
    a, b = stage.fired
    assert a.begin()
    stage.timers.hold()
    await stage.set("c", 2)
    await stage.until(100)
    assert len(stage.fired) == 2
    assert await a.end()
    assert not b.begin(), "what has not begun does not begin"
    assert await stage.times("c") == [2]
    await stage.next_owner()
    assert sorted(stage.seen[2:]) == [("a", 2), ("b", 1), ("c", 2)]


async def test_after_the_stop_nothing_fires_and_all_is_refused(stage: Stage) -> None:
    await stage.set("a", 1)
    await stage.set("b", 1)
    await stage.set("c", 50)
    await stage.until(2)
    a, b = stage.fired
    assert a.begin()
    stage.timers.stop()
    stage.timers.stop()
    await stage.timers.settled()
    assert not b.begin()
    calls = stage.state.on_call = list[str]().append  # type: ignore[assignment]
    assert await a.end() is False
    for call in (
        stage.set("d", 1), stage.unset("c", 50), stage.clear("c"), stage.replace("c", 1),
        stage.times("c"), stage.timers.exclusive("c", settle),
    ):  # fmt: skip
        with pytest.raises(StoreError, match="given up"):
            await call
    await asyncio.sleep(1_000)
    assert calls.__self__ == []  # type: ignore[attr-defined]
    assert len(stage.fired) == 2
    assert stage.stored() == [("a", 1), ("b", 1), ("c", 50)]
    stage.timers.start()
    await settle()
    assert len(stage.fired) == 2
