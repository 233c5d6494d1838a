"""Whatever happens, in any order: histories with faults, and exact models without."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prosody.stores.memory import MemoryStoreState
from tests.support import WALL_AT_START_S, VirtualLoop, run_virtual, settle
from tests.timers.support import APP, MESSAGE, Stage
from tests.timers.world import Store, play, small_memory

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from prosody.timers.due import DueTimer


@pytest.fixture(autouse=True, scope="module")
def no_logs() -> Iterator[None]:
    """Failing calls are the point here; their log lines only cost time."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@given(st.randoms(use_true_random=False), st.integers(0, 50))
@settings(max_examples=60)
def test_histories_with_faults_crashes_and_handovers(rng: random.Random, steps: int) -> None:
    """Exactly once without a crash, at least once with one; see ``world.Record``."""
    run_virtual(play(rng, steps))


class YearsLoop(VirtualLoop):
    """Far from its beginning the times of a loop differ by more than the resolution it assumes."""

    def __init__(self) -> None:
        super().__init__()
        self._clock_resolution = 1e-6


def run_years(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=YearsLoop) as runner:
        runner.run(main)


class Model:
    """A dict of timers, and what fires of them."""

    def __init__(self) -> None:
        self.set: set[tuple[str, int]] = set()
        self.firing: dict[str, int] = {}
        self.again: set[str] = set()

    def schedule(self, key: str, time: int) -> None:
        if self.firing.get(key) == time:
            self.again.add(key)
        else:
            self.set.add((key, time))

    def unschedule(self, key: str, time: int) -> None:
        if self.firing.get(key) == time:
            self.again.discard(key)
        else:
            self.set.discard((key, time))

    def times(self, key: str) -> list[int]:
        marked = {self.firing[key]} if key in self.again else set()
        return sorted({time for k, time in self.set if k == key} | marked)

    def clear(self, key: str) -> list[int]:
        gone = self.times(key)
        for time in gone:
            self.unschedule(key, time)
        return gone

    def replace(self, key: str, time: int) -> list[int]:
        gone = [t for t in self.times(key) if t != time]
        for other in gone:
            self.unschedule(key, other)
        self.schedule(key, time)
        return gone


KEYS = ("a", "b", "c")
PAGE, AHEAD = 2, 50_000
TIMES = (-5, 1, 2, 3, 300, 301, 700, 90_000, 4_000_000)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ("schedule", "schedule", "unschedule", "clear", "replace", "wait", "end", "end")
        ),
        st.sampled_from(KEYS),
        st.sampled_from(TIMES),
    ),
    max_size=40,
)


@given(STEPS, st.sampled_from((2, 5, 100)))
@settings(max_examples=150)
def test_one_thing_after_the_other_is_what_the_model_says(
    steps: list[tuple[str, str, int]], share: int
) -> None:
    """Without faults everything is exact: what is listed, what is returned, what fires and when."""
    run_years(_beside_the_model(steps, share))


async def _beside_the_model(steps: list[tuple[str, str, int]], share: int) -> None:
    with small_memory(share, page=PAGE, kinds=3, look_s=100_000.0, ahead_s=AHEAD):
        stage = await Stage(limit=10).start()
        model = Model()
        live: dict[str, DueTimer] = {}
        seen = 0

        async def look() -> None:
            nonlocal seen
            await settle()
            for timer in stage.fired[seen:]:
                seen += 1
                assert timer.begin()
                live[timer.key] = timer
                place = (timer.key, int(timer.time - WALL_AT_START_S))
                model.set.remove(place)
                model.firing[place[0]] = place[1]
            due = {key for key, time in model.set if time <= stage.now} - set(model.firing)
            # What waits behind a timer of its key that is firing takes room, and with too much of that
            # nothing more of the kind is loaded (docs/durable.md, "A full memory").
            behind = [k for k, time in model.set if k in model.firing and time <= stage.now + AHEAD]
            assert not due or len(behind) > share - PAGE, f"late: {due}"
            for key in KEYS:
                assert await stage.times(key) == model.times(key)

        for name, key, time in steps:
            call: Any = getattr(
                stage, {"schedule": "set", "unschedule": "unset"}.get(name, name), None
            )
            if name == "wait":
                await stage.until(stage.now + max(time, 0) + 0.1)
            elif name == "end":
                if key in live:
                    assert await live.pop(key).end()
                    ended = model.firing.pop(key)
                    if key in model.again:
                        model.again.discard(key)
                        model.set.add((key, ended))
            else:
                given = (key,) if name == "clear" else (key, time)
                expected = getattr(model, name)(*given)
                assert await call(*given) == expected
            await look()
        for key in list(live):
            assert await live.pop(key).end()
        await stage.stop()


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 4_000)), max_size=60),
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 4_000)), max_size=60),
    st.sampled_from((2, 5, 100)),
    st.integers(1, 3),
)
@settings(max_examples=60)
def test_nothing_is_late_when_the_store_is_well(
    before: list[tuple[str, int]], during: list[tuple[str, int]], share: int, page: int
) -> None:
    """However little room there is in memory, and whatever is set while the time passes."""
    run_virtual(_in_time(before, during, share, page))


async def _in_time(
    before: list[tuple[str, int]], during: list[tuple[str, int]], share: int, page: int
) -> None:
    with small_memory(share, page=min(page, share), kinds=3, look_s=600.0):
        stage = Stage(limit=10)
        for key, time in before:
            await stage.put(key, time, kind=MESSAGE)
        await stage.start()
        wanted = {(key, time, MESSAGE): float(time) for key, time in before}
        done = 0
        moments = iter(sorted((time // 2, key, time) for key, time in during))
        following = next(moments, None)
        while stage.now < 4_100:
            while following is not None and following[0] <= stage.now:
                _, key, time = following
                if (key, time, APP) not in wanted:
                    await stage.set(key, time)
                    wanted[key, time, APP] = max(stage.now, float(time))
                following = next(moments, None)
            while done < len(stage.fired):
                timer, at = stage.fired[done], stage.at[done]
                done += 1
                assert timer.begin()
                due = wanted.pop((timer.key, int(timer.time - WALL_AT_START_S), timer.kind))
                assert -0.001 <= at - due <= 1.01, f"{timer} at {at}"
                assert await timer.end()
                await settle()
            upcoming = 4_100.0 if following is None else max(float(following[0]), stage.now)
            nearest = min([*wanted.values(), upcoming, 4_100.0])
            await asyncio.sleep(max(min(nearest - stage.now, 500.0), 0.01))
            await settle()
        assert not wanted
        await stage.stop()


def test_years_pass_in_seconds() -> None:
    async def years() -> None:
        year = 365 * 86_400
        with small_memory(1_000, page=1_000, kinds=3, look_s=86_400.0, ahead_s=30 * 86_400):
            stage = await Stage().start()
            for n in range(1, 6):
                await stage.set("a", n * year)
                await stage.set("b", n * year)
            await stage.unset("b", 3 * year)
            assert stage.timers.pending == 0
            done = 0
            while stage.now < 6 * year:
                await asyncio.sleep(year // 4 + 7)
                for timer in stage.fired[done:]:
                    done += 1
                    assert timer.begin()
                    assert await timer.end()
            wanted = [(k, n * year) for n in range(1, 6) for k in "ab" if (k, n) != ("b", 3)]
            assert stage.seen == wanted
            assert all(
                0 <= at - time < 0.01 for at, (_, time) in zip(stage.at, wanted, strict=True)
            )
            await stage.stop()

    run_years(years())


def test_the_store_of_the_histories_is_one() -> None:
    """It tells two calls about one key at the same time from two about different keys."""

    async def calls(*keys: str) -> list[str]:
        state = MemoryStoreState()
        state.on_call = lambda _: asyncio.sleep(1.0)
        stage = Stage(store=Store(state))
        with contextlib.suppress(AssertionError):
            await asyncio.gather(*(stage.put(key, 5) for key in keys))
        faults: list[str] = stage.store.faults
        return faults

    assert run_virtual(calls("a", "b")) == []
    assert run_virtual(calls("a", "a")) == ["two calls about key 'a' at the same time"]
