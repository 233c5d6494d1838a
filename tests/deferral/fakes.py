"""Timers of a partition, as simple as they can be, over the store in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from prosody.config.options_qos import DeferOptions
from prosody.deferral.deferrals import Deferrals
from prosody.errors import StoreError
from prosody.stores.memory import MemoryStores, MemoryStoreState
from prosody.stores.protocol import Place, Segment, StoredTimer, TimerKind
from tests.middleware.fakes import storms
from tests.support import FakeRuntime

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

SEGMENT = Segment("group", "orders", 3)


class FakeDue:
    """A timer that was handed to its partition."""

    def __init__(self, timer: StoredTimer, timers: FakeTimers) -> None:
        self.time, self.kind, self.key, self.trace = timer
        self.place = timer.place
        self.firing = False
        self.again = False
        self._timers = timers

    def begin(self) -> bool:
        self.firing = self._timers.handed.get(self.place) is self
        return self.firing

    async def end(self) -> None:
        timers = self._timers
        while not timers.closed:
            if self.again:
                break
            try:
                await timers.exclusive(self.key, lambda: timers.store.remove(SEGMENT, self.place))
            except StoreError:
                await asyncio.sleep(0.5)  # until it works, or the partition is given up
            else:
                break
        if timers.handed.get(self.place) is self:
            del timers.handed[self.place]


class FakeTimers:
    """Sets, cancels and hands out; one operation of a key after the other."""

    def __init__(self, store: Any, runtime: FakeRuntime) -> None:
        self.store = store
        self.runtime = runtime
        self.handed: dict[Place, FakeDue] = {}
        self.closed = False
        self.calls: list[tuple[Any, ...]] = []
        self._locks: dict[str, asyncio.Lock] = {}

    async def exclusive(self, key: str, operation: Callable[[], Awaitable[T]]) -> T:
        lock = self._locks.setdefault(key, asyncio.Lock())

        async def in_turn() -> T:
            async with lock:
                return await operation()

        task = asyncio.ensure_future(in_turn())
        task.add_done_callback(lambda t: t.cancelled() or t.exception())
        return await asyncio.shield(task)

    async def schedule(self, key: str, time: int, kind: TimerKind, trace: Any) -> None:
        self.calls.append(("schedule", key, time, kind))
        await self.exclusive(key, lambda: self._add(StoredTimer(time, kind, key, trace)))

    async def _add(self, timer: StoredTimer) -> None:
        await self.store.add(SEGMENT, timer)
        self._again(timer.place)

    def _again(self, place: Place) -> None:
        if (handed := self.handed.get(place)) is not None and handed.firing:
            handed.again = True

    async def unschedule(self, key: str, time: int, kind: TimerKind) -> None:
        self.calls.append(("unschedule", key, time, kind))
        place = Place(time, kind, key)
        handed = self.handed.get(place)
        if handed is not None and handed.firing and not handed.again:
            return
        await self.exclusive(key, lambda: self.store.remove(SEGMENT, place))
        self._cancelled(place)

    def _cancelled(self, place: Place) -> None:
        handed = self.handed.get(place)
        if handed is None:
            return
        if handed.firing:
            handed.again = False
        else:
            del self.handed[place]

    async def clear(self, key: str, kind: TimerKind) -> list[int]:
        self.calls.append(("clear", key, kind))
        gone: list[int] = await self.exclusive(key, lambda: self.store.clear(SEGMENT, key, kind))
        for time in gone:
            self._cancelled(Place(time, kind, key))
        return gone

    async def replace(self, key: str, time: int, kind: TimerKind, trace: Any) -> list[int]:
        self.calls.append(("replace", key, time, kind))
        timer = StoredTimer(time, kind, key, trace)
        gone: list[int] = await self.exclusive(key, lambda: self.store.replace(SEGMENT, timer))
        self._again(timer.place)
        for other in gone:
            self._cancelled(Place(other, kind, key))
        return gone

    async def times(self, key: str, kind: TimerKind) -> list[int]:
        found = await self.exclusive(key, lambda: self.store.times(SEGMENT, key, kind))
        firing = {
            place.time
            for place, handed in self.handed.items()
            if place[1:] == (kind, key) and handed.firing and not handed.again
        }
        return [time for time in found if time not in firing]

    async def due(self) -> list[FakeDue]:
        """Those that are due and not handed out yet."""
        now = int(self.runtime.wall())
        found = []
        for timer in await self.store.load(SEGMENT, None, now, 1000):
            if timer.place not in self.handed:
                handed = self.handed[timer.place] = FakeDue(timer, self)
                found.append(handed)
        return found


class Bench:
    """Stores, timers and the deferrals of one assignment."""

    def __init__(self, cache_size: int = 8, state: MemoryStoreState | None = None) -> None:
        self.runtime = FakeRuntime()
        self.state = state or MemoryStoreState()
        self.stores = MemoryStores(self.state, runtime=self.runtime, dedup_ttl_s=1.0)
        self.timers = FakeTimers(self.stores.timers, self.runtime)
        self.deferrals = Deferrals(
            SEGMENT, self.stores.deferred, self.timers, cache_size, self.runtime, storms()
        )
        self.calls: list[str] = []
        self.failing: set[str] = set()
        """Calls that fail before they have any effect."""
        self.lying: set[str] = set()
        """Calls that have their effect and fail all the same."""
        self.state.on_call = self._on_call
        self.state.on_done = self._on_done

    def _on_call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.failing:
            raise StoreError(f"{name} failed", retriable=True)

    def _on_done(self, name: str) -> None:
        if name in self.lying:
            raise StoreError(f"{name} failed, or so it seems", retriable=True)

    @property
    def wall(self) -> int:
        return int(self.runtime.wall())

    def queue(self, kind: Any, key: str) -> list[int]:
        """What is stored."""
        queue = self.state.queues_of(SEGMENT, kind).get(key)
        return [] if queue is None else list(queue.positions)

    def retry_timers(self, key: str, kind: TimerKind = TimerKind.DEFERRED_MESSAGE) -> list[int]:
        """What is stored."""
        table = self.state.timer_table(SEGMENT)
        return [time for k, name, time in table.by_key if (k, name) == (kind, key)]


def options(**changes: Any) -> DeferOptions:
    return DeferOptions(**changes)
