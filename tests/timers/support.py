"""A partition's timers on a stage of their own: the store in memory, and a partition that only collects."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from prosody.stores.memory import MemoryStoreState
from prosody.stores.protocol import Place, StoredTimer, TimerKind
from tests.support import settle
from tests.timers.world import SEGMENT, START, Runtime, Store, make_timers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from prosody.timers.due import DueTimer

APP, MESSAGE, TIMER = TimerKind
TRACE = {"traceparent": "00-1"}


class Stage:
    """Times are given from ``START`` on, at which the clock begins."""

    def __init__(
        self, limit: int = 8, kinds: Collection[TimerKind] = tuple(TimerKind), store: Any = None
    ) -> None:
        self.state = MemoryStoreState() if store is None else store.state
        self.store: Any = Store(self.state) if store is None else store
        self.runtime = Runtime()
        self.fired: list[DueTimer] = []
        self.at: list[float] = []
        """When each of them fired, on the wall clock."""
        self.limit = limit
        self.kinds = kinds
        self.timers = self.owner()

    def owner(self) -> Any:
        return make_timers(self.store, self.runtime, self.fire, self.limit, self.kinds)

    def fire(self, timer: DueTimer) -> None:
        self.fired.append(timer)
        self.at.append(self.now)

    async def start(self) -> Stage:
        await self.timers.open(3)
        self.timers.start()
        await settle()
        return self

    async def next_owner(self, *, settled: bool = True) -> None:
        """Stop, and let another one begin."""
        self.timers.stop()
        if settled:
            await self.timers.settled()
        self.timers = self.owner()
        await self.start()

    async def stop(self) -> None:
        self.timers.stop()
        await self.timers.settled()
        assert not self.store.faults, self.store.faults

    @property
    def now(self) -> float:
        return self.runtime.wall() - START

    async def until(self, second: float) -> None:
        """Let the time pass."""
        await asyncio.sleep(second - self.now)

    async def set(self, key: str, *times: int, kind: TimerKind = APP) -> None:
        for time in times:
            await self.timers.schedule(key, START + time, kind, TRACE)

    async def unset(self, key: str, time: int, kind: TimerKind = APP) -> None:
        await self.timers.unschedule(key, START + time, kind)

    async def clear(self, key: str, kind: TimerKind = APP) -> list[int]:
        return [time - START for time in await self.timers.clear(key, kind)]

    async def replace(self, key: str, time: int, kind: TimerKind = APP) -> list[int]:
        gone = await self.timers.replace(key, START + time, kind, TRACE)
        return [time - START for time in gone]

    async def times(self, key: str, kind: TimerKind = APP) -> list[int]:
        return [time - START for time in await self.timers.times(key, kind)]

    def stored(self) -> list[tuple[str, int]]:
        return sorted((place.key, place.time - START) for place in self.store.places)

    async def put(self, key: str, *times: int, kind: TimerKind = APP) -> None:
        """Store timers as an earlier owner did."""
        for time in times:
            await self.store.add(SEGMENT, StoredTimer(START + time, kind, key, {}))

    @property
    def seen(self) -> list[tuple[str, int]]:
        """What fired, in this order."""
        return [(timer.key, timer.time - START) for timer in self.fired]

    async def handle_all(self, until: float) -> None:
        """Let the time pass; what fires succeeds at once."""
        done = 0
        while self.now < until or done < len(self.fired):
            while done < len(self.fired):
                timer = self.fired[done]
                done += 1
                if timer.begin():
                    assert await timer.end()
            await settle()
            if done == len(self.fired) and self.now < until:
                await asyncio.sleep(min(0.25, until - self.now))


def place(key: str, time: int, kind: TimerKind = APP) -> Place:
    return Place(START + time, kind, key)


class Hook:
    """Does something to the calls of a store: waits, or fails, before the effect or after it."""

    def __init__(self, name: str, action: Callable[[], Any], times: int = 1_000_000) -> None:
        self.name = name
        self.action = action
        self.times = times
        self.calls = 0

    def __call__(self, name: str) -> Any:
        if name != self.name:
            return None
        self.calls += 1
        return self.action() if self.calls <= self.times else None
