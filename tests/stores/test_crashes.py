"""Whatever write a crash falls upon, what is left behind keeps the rules of the stores."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from prosody.errors import StoreError
from prosody.stores.cassandra.defer import CassandraDeferStore
from prosody.stores.cassandra.timers import CassandraTimerStore
from prosody.stores.hashing import segment_id
from prosody.stores.protocol import DeferredKind, Segment
from tests.stores.support import APP, deferred, load_all, timer
from tests.stores.tables import Tables, TableStores
from tests.support import FakeRuntime, run_virtual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SEGMENT = Segment("g", "t", 0)
MESSAGE = DeferredKind.MESSAGE
T = 1_700_000_000
MOST_WRITES = 12


class World:
    """Tables, and stores over them that can be made anew; their classes may be mutants."""

    def __init__(self, timers: type = CassandraTimerStore, deferred: type = CassandraDeferStore):
        self.tables = Tables()
        self._classes = {"timers": timers, "deferred": deferred}

    def stores(self, slab_size_s: float = 3600.0) -> TableStores:
        return TableStores(self.tables, FakeRuntime(), slab_size_s=slab_size_s, **self._classes)

    def fail_at(self, number: int, when: str, *, once: bool = False) -> None:
        """Let the write of this number fail, and all after it: the process is gone. Or only this one."""
        count = 0

        def fault(name: str) -> str | None:
            nonlocal count
            count += 1
            if count == number:
                return when
            return None if count < number or once else "before"

        self.tables.fault = fault

    def mend(self) -> None:
        self.tables.fault = lambda name: None

    def in_slabs(self) -> set[tuple[str, int]]:
        """(key, time) of all that lies in a slab."""
        return {(key, time) for slab in self.tables.timers.values() for time, _, key in slab}

    def listed(self) -> set[tuple[str, int]]:
        """(key, time) of all that is listed under its key."""
        return {
            (whose[1], time)
            for whose, rows in self.tables.times.items()
            for times in rows.values()
            for time in times
        }


async def crash_anywhere(
    world: Callable[[], World],
    before: Callable[[TableStores], Awaitable[Any]],
    call: Callable[[TableStores], Awaitable[Any]],
    check: Callable[[World, bool], Awaitable[None]],
) -> int:
    """Run ``call`` with a crash at each of its writes; returns how many those are."""
    for number in range(1, MOST_WRITES + 1):
        for when, once in itertools.product(("before", "after"), (False, True)):
            w = world()
            stores = w.stores()
            await stores.timers.open(SEGMENT, 1)
            await before(stores)
            w.fail_at(number, when, once=once)
            failed = False
            try:
                await call(stores)
            except StoreError:
                failed = True
            w.mend()
            await check(w, failed)
            if not (failed or once):
                return number - 1
    raise AssertionError("it writes without end")


async def one_old_timer(stores: TableStores) -> None:
    await stores.timers.add(SEGMENT, timer(T))


async def two_old_timers(stores: TableStores) -> None:
    await stores.timers.add(SEGMENT, timer(T))
    await stores.timers.add(SEGMENT, timer(T + 9000))


async def nothing_before(stores: TableStores) -> None: ...


async def every_timer_is_listed_and_found(w: World, failed: bool) -> None:
    """What lies in a slab is listed under its key, and its slab is registered, beyond what has passed."""
    assert w.in_slabs() <= w.listed(), "it could fire, but nobody could clear it"
    again = w.stores()
    await again.timers.open(SEGMENT, 1)
    loaded = {(t.key, t.time) for t in await load_all(again, SEGMENT)}
    assert loaded == w.in_slabs(), "it lies there, but is never loaded"
    if not failed:
        assert w.in_slabs() == w.listed()
    for key in {key for key, _ in w.listed()}:
        await again.timers.clear(SEGMENT, key, APP)
    assert await load_all(again, SEGMENT) == []


async def adding(world: Callable[[], World]) -> None:
    async def check(w: World, failed: bool) -> None:
        if not failed:
            assert ("k", T + 5) in w.in_slabs()
        await every_timer_is_listed_and_found(w, failed)

    for before in (nothing_before, one_old_timer):
        writes = await crash_anywhere(
            world, before, lambda s: s.timers.add(SEGMENT, timer(T + 5)), check
        )
        assert writes == (3 if before is nothing_before else 2)


async def adding_late(world: Callable[[], World]) -> None:
    """A timer before what has passed."""

    async def passed(stores: TableStores) -> None:
        await one_old_timer(stores)
        await stores.timers.remove(SEGMENT, timer(T).place)
        await stores.timers.passed(SEGMENT, T + 100)

    await crash_anywhere(
        world, passed, lambda s: s.timers.add(SEGMENT, timer(T)), every_timer_is_listed_and_found
    )
    await crash_anywhere(
        world, passed, lambda s: s.timers.add(SEGMENT, timer(7)), every_timer_is_listed_and_found
    )


async def removing(world: Callable[[], World]) -> None:
    for before in (one_old_timer, two_old_timers):
        await crash_anywhere(
            world,
            before,
            lambda s: s.timers.remove(SEGMENT, timer(T).place),
            every_timer_is_listed_and_found,
        )


async def replacing(world: Callable[[], World]) -> None:
    for before, old in ((one_old_timer, {T}), (two_old_timers, {T, T + 9000})):

        async def check(w: World, failed: bool, old: set[int] = old) -> None:
            there = {time for _, time in w.in_slabs()}
            assert T + 50 in there or there == old, (
                "an old one was gone before the new one was there"
            )
            if not failed:
                assert there == {T + 50}
            await every_timer_is_listed_and_found(w, failed)

        await crash_anywhere(
            world, before, lambda s: s.timers.replace(SEGMENT, timer(T + 50)), check
        )


async def clearing(world: Callable[[], World]) -> None:
    await crash_anywhere(
        world,
        two_old_timers,
        lambda s: s.timers.clear(SEGMENT, "k", APP),
        every_timer_is_listed_and_found,
    )


async def passing(world: Callable[[], World]) -> None:
    async def before(stores: TableStores) -> None:
        for time in (T - 9000, T):
            await stores.timers.add(SEGMENT, timer(time))
        await stores.timers.remove(SEGMENT, timer(T - 9000).place)

    await crash_anywhere(
        world, before, lambda s: s.timers.passed(SEGMENT, T), every_timer_is_listed_and_found
    )
    # An add of an earlier time is under way, however far: what it adds must be found.
    for turns in range(12):
        w = world()
        stores = w.stores()
        await stores.timers.open(SEGMENT, 1)
        await before(stores)
        adding = asyncio.create_task(stores.timers.add(SEGMENT, timer(T - 9000, "late")))
        for _ in range(turns):
            await asyncio.sleep(0)
        if adding.done():
            break  # now it would be wrong to say that nothing is left before T
        await stores.timers.passed(SEGMENT, T)
        await adding
        await every_timer_is_listed_and_found(w, True)


async def two_deferred(stores: TableStores) -> None:
    await stores.deferred.defer(SEGMENT, MESSAGE, "k", deferred(5), "boom")
    await stores.deferred.append(SEGMENT, MESSAGE, "k", deferred(6))


async def nothing_deferred_is_lost(world: Callable[[], World]) -> None:
    async def both(w: World, failed: bool) -> None:
        store = w.stores().deferred
        positions = await store.positions(SEGMENT, MESSAGE, "k")
        assert positions in ([5, 6], [6]), "6 was not done with"
        if not failed:
            assert positions == [6]

    await crash_anywhere(
        world, two_deferred, lambda s: s.deferred.advance(SEGMENT, MESSAGE, "k", 5), both
    )

    async def dropped(w: World, failed: bool) -> None:
        store = w.stores().deferred
        if not failed:
            assert await store.queue(SEGMENT, MESSAGE, "k") is None
        if await store.queue(SEGMENT, MESSAGE, "k") is None:
            await store.defer(SEGMENT, MESSAGE, "k", deferred(4), "new")
            assert await store.positions(SEGMENT, MESSAGE, "k") == [4], "a dropped one came back"

    await crash_anywhere(
        world, two_deferred, lambda s: s.deferred.drop(SEGMENT, MESSAGE, "k"), dropped
    )


async def nothing_is_remembered_of_a_write_that_failed(world: Callable[[], World]) -> None:
    """The same stores go on after a failure; what they answer is what is stored."""
    for number in range(1, 6):
        for when in ("before", "after"):
            w = world()
            stores = w.stores()
            await stores.timers.open(SEGMENT, 1)
            await two_old_timers(stores)
            await two_deferred(stores)
            w.fail_at(number, when)
            for call in (
                stores.timers.replace(SEGMENT, timer(T + 50)),
                stores.deferred.failed(SEGMENT, MESSAGE, "k", 7, "seventh"),
            ):
                with contextlib.suppress(StoreError):
                    await call
                w.fail_at(number, when)
            w.mend()
            again = w.stores()
            assert await stores.timers.times(SEGMENT, "k", APP) == await again.timers.times(
                SEGMENT, "k", APP
            )
            assert await stores.deferred.queue(SEGMENT, MESSAGE, "k") == (
                await again.deferred.queue(SEGMENT, MESSAGE, "k")
            )


async def removed_rows_are_not_read_again(world: Callable[[], World]) -> None:
    """Loading begins where nothing was removed; forgotten slabs are not looked into."""
    w = world()
    stores = w.stores()
    await stores.timers.open(SEGMENT, 1)
    for n in range(50):
        await stores.timers.add(SEGMENT, timer(T + n * 3600))
    for n in range(49):
        await stores.timers.remove(SEGMENT, timer(T + n * 3600).place)
    await stores.timers.passed(SEGMENT, T + 49 * 3600)
    again = w.stores()
    await again.timers.open(SEGMENT, 1)
    w.tables.asked.clear()
    assert len(await load_all(again, SEGMENT)) == 1
    assert [name for name, _ in w.tables.asked] == ["timers.load"]
    # From the time that has passed; before it there are only marks of what was removed.
    assert w.tables.asked[0][1][2:5] == (T + 49 * 3600, -1, "")
    assert len(w.tables.slabs[segment_id(SEGMENT)]) == 1


async def known_keys(world: Callable[[], World]) -> None:
    """Keys with a queue are found, when all are known and while they are being read."""
    w = world()
    for n in range(5):
        await w.stores().deferred.defer(SEGMENT, MESSAGE, f"k{n}", deferred(n), "boom")
    stores = w.stores()
    await stores.timers.open(SEGMENT, 1)
    pages = aiter(stores.deferred.hashes(SEGMENT, MESSAGE))
    await anext(pages)
    for n in range(5):
        assert await stores.deferred.positions(SEGMENT, MESSAGE, f"k{n}") == [n]
    await stores.deferred.defer(SEGMENT, MESSAGE, "meanwhile", deferred(7), "boom")
    async for _ in pages:
        pass
    await stores.deferred.defer(SEGMENT, MESSAGE, "afterwards", deferred(8), "boom")
    stores.deferred._heads.clear()
    for key, position in (("k0", 0), ("k4", 4), ("meanwhile", 7), ("afterwards", 8)):
        assert await stores.deferred.positions(SEGMENT, MESSAGE, key) == [position]


SCENARIOS = {
    each.__name__: each
    for each in (
        adding, adding_late, removing, replacing, clearing, passing, nothing_deferred_is_lost,
        nothing_is_remembered_of_a_write_that_failed, removed_rows_are_not_read_again,
        known_keys,
    )
}  # fmt: skip


@pytest.mark.parametrize("scenario", list(SCENARIOS))
def test_crash(scenario: str) -> None:
    run_virtual(SCENARIOS[scenario](World))
