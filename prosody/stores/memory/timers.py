"""Timers in memory."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from prosody.stores.protocol import Place, StoredTimer, TimerKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prosody.stores.memory.state import MemoryStoreState, TimerTable
    from prosody.stores.protocol import Segment

_BEFORE_ALL = Place(-1, TimerKind.APPLICATION, "")


class MemoryTimerStore:
    """A :class:`~prosody.stores.protocol.TimerStore` over the embedded cluster's state.

    O(log n) for every operation on a timer, whatever n.
    """

    def __init__(self, state: MemoryStoreState) -> None:
        self._state = state

    async def open(self, segment: Segment, partitions: int) -> int | None:
        await self._state.begin("timers.open")
        with self._state.lock:
            table = self._state.timer_table(segment)
            before, table.partitions = table.partitions, partitions
        await self._state.end("timers.open")
        return before

    async def load(
        self, segment: Segment, after: Place | None, until: int, limit: int
    ) -> Sequence[StoredTimer]:
        await self._state.begin("timers.load")
        found: list[StoredTimer] = []
        with self._state.lock:
            table = self._state.timer_table(segment)
            for place in table.by_time.beyond(_BEFORE_ALL if after is None else after):
                if place.time > until or len(found) == limit:
                    break
                found.append(StoredTimer(*place, table.traces[place]))
        return found

    async def add(self, segment: Segment, timer: StoredTimer) -> None:
        await self._state.begin("timers.add")
        with self._state.lock:
            _put(self._state.timer_table(segment), timer)
        await self._state.end("timers.add")

    async def remove(self, segment: Segment, place: Place) -> None:
        await self._state.begin("timers.remove")
        with self._state.lock:
            _take(self._state.timer_table(segment), place)
        await self._state.end("timers.remove")

    async def times(self, segment: Segment, key: str, kind: TimerKind) -> list[int]:
        await self._state.begin("timers.times")
        with self._state.lock:
            return _times(self._state.timer_table(segment), key, kind)

    async def replace(self, segment: Segment, timer: StoredTimer) -> list[int]:
        await self._state.begin("timers.replace")
        with self._state.lock:
            table = self._state.timer_table(segment)
            others = [t for t in _times(table, timer.key, timer.kind) if t != timer.time]
            _put(table, timer)
            for time in others:
                _take(table, Place(time, timer.kind, timer.key))
        await self._state.end("timers.replace")
        return others

    async def clear(self, segment: Segment, key: str, kind: TimerKind) -> list[int]:
        await self._state.begin("timers.clear")
        with self._state.lock:
            table = self._state.timer_table(segment)
            gone = _times(table, key, kind)
            for time in gone:
                _take(table, Place(time, kind, key))
        await self._state.end("timers.clear")
        return gone

    async def passed(self, segment: Segment, before: int) -> None:
        # Nothing is left where a timer was removed, so there is nothing to step over.
        await self._state.begin("timers.passed")


def _put(table: TimerTable, timer: StoredTimer) -> None:
    place = timer.place
    if table.by_time.add(place):
        table.by_key.add((timer.kind, timer.key, timer.time))
    table.traces[place] = timer.trace


def _take(table: TimerTable, place: Place) -> None:
    if table.by_time.discard(place):
        table.by_key.discard((place.kind, place.key, place.time))
        del table.traces[place]


def _times(table: TimerTable, key: str, kind: TimerKind) -> list[int]:
    wanted = (kind, key)
    entries = table.by_key.beyond((kind, key, -1))
    return [time for _, _, time in takewhile(lambda entry: entry[:2] == wanted, entries)]
