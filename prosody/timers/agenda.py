"""The timers of one kind in memory, and whose turn is next. Knows no clock and no store."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from prosody.timers.due import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prosody.timers.due import DueTimer

SLACK = 64
"""Entries that stand for nothing any more and are still put up with, beyond as many as there are others."""


class KeyTimers:
    """The timers of one key: at most one of them is handed out."""

    __slots__ = ("_order", "handed", "waiting")

    def __init__(self) -> None:
        self.handed: DueTimer | None = None
        """Handed or firing; or cancelled, and its partition has not come upon it yet."""
        self.waiting: dict[int, DueTimer] = {}
        self._order: list[int] = []
        """A heap of the times in ``waiting``, and of some that have left it."""

    def put(self, timer: DueTimer) -> None:
        self.waiting[timer.time] = timer
        heapq.heappush(self._order, timer.time)
        if len(self._order) > 2 * len(self.waiting) + SLACK:
            self._order = sorted(self.waiting)

    def first(self) -> int | None:
        """The earliest time of those that wait."""
        order = self._order
        while order and order[0] not in self.waiting:
            heapq.heappop(order)
        return order[0] if order else None

    def live(self) -> Iterator[DueTimer]:
        """Those that wait, and the one handed out unless it was cancelled."""
        if self.handed is not None and self.handed.state is not State.GONE:
            yield self.handed
        yield from self.waiting.values()


class Agenda:
    """Timers by key, in the order of their times; of each key only the first can be next.

    So a key with many timers takes one place among those that are handed out.
    """

    def __init__(self, limit: int) -> None:
        """:param limit: timers handed out at once, and not released."""
        self._limit = limit
        self._keys: dict[str, KeyTimers] = {}
        self._heap: list[tuple[int, str]] = []
        """For each key without a handed timer its first one, and entries that are out of date."""
        self.waiting = 0
        self.handed = 0

    def get(self, key: str, time: int) -> DueTimer | None:
        """The timer of that key and time, unless it was cancelled."""
        if (found := self._keys.get(key)) is None:
            return None
        handed = found.handed
        if handed is not None and handed.time == time and handed.state is not State.GONE:
            return handed
        return found.waiting.get(time)

    def first_times(self) -> dict[str, int]:
        """The time of each key's first timer, those that were cancelled excepted; goes through all."""
        times: dict[str, int] = {}
        for key, found in self._keys.items():
            if (first := min((timer.time for timer in found.live()), default=None)) is not None:
                times[key] = first
        return times

    def of_key(self, key: str) -> list[DueTimer]:
        """All timers of a key, those that were cancelled excepted."""
        found = self._keys.get(key)
        return [] if found is None else list(found.live())

    def firing(self, key: str) -> DueTimer | None:
        """The timer of that key that is firing."""
        found = self._keys.get(key)
        if found is None or found.handed is None or found.handed.state is not State.FIRING:
            return None
        return found.handed

    def put(self, timer: DueTimer) -> None:
        """Take a timer in that is not here yet."""
        if (found := self._keys.get(timer.key)) is None:
            found = self._keys[timer.key] = KeyTimers()
        found.put(timer)
        self.waiting += 1
        self._offer(timer.key, found)

    def discard(self, timer: DueTimer) -> None:
        """A timer was cancelled. One that is handed out keeps its place until it is released."""
        found = self._keys[timer.key]
        timer.state = State.GONE
        if found.waiting.get(timer.time) is timer:
            del found.waiting[timer.time]
            self.waiting -= 1
            self._offer(timer.key, found)

    def next_time(self) -> int | None:
        """When the next timer can be handed out; None when there is none, or no place for it."""
        if self.handed >= self._limit:
            return None
        heap = self._heap
        while heap and not self._is_first(*heap[0]):
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def hand(self) -> DueTimer:
        """Hand out the timer that ``next_time`` spoke of."""
        time, key = heapq.heappop(self._heap)
        found = self._keys[key]
        timer = found.handed = found.waiting.pop(time)
        timer.state = State.HANDED
        self.waiting -= 1
        self.handed += 1
        return timer

    def release(self, timer: DueTimer) -> None:
        """A timer that was handed out gives its place to the next; a second time does nothing."""
        found = self._keys.get(timer.key)
        if found is not None and found.handed is timer:
            found.handed = None
            self.handed -= 1
            self._offer(timer.key, found)

    def shrink(self, keep: int, start: int = 0) -> int:
        """Send the latest out of memory, so that at most ``keep`` wait: all from some second on.

        :param start: timers before that second stay in any case.
        :returns: that second. More than ``keep`` were waiting.
        """
        waiting = [timer for found in self._keys.values() for timer in found.waiting.values()]
        bound = max(sorted(timer.time for timer in waiting)[keep], start)
        for timer in waiting:
            if timer.time >= bound:
                self.discard(timer)
        return bound

    def earliest(self) -> int | None:
        """The earliest time of all that are here."""
        times = [timer.time for k in self._keys.values() if (timer := k.handed) is not None]
        times += [first for k in self._keys.values() if (first := k.first()) is not None]
        return min(times, default=None)

    def _is_first(self, time: int, key: str) -> bool:
        found = self._keys.get(key)
        return found is not None and found.handed is None and found.first() == time

    def _offer(self, key: str, found: KeyTimers) -> None:
        """Let the first timer of a key be among those that can be next."""
        if found.handed is not None:
            return
        if (first := found.first()) is None:
            del self._keys[key]
            return
        heapq.heappush(self._heap, (first, key))
        if len(self._heap) > 2 * len(self._keys) + SLACK:
            firsts = ((k.first(), name) for name, k in self._keys.items() if k.handed is None)
            self._heap = sorted((time, name) for time, name in firsts if time is not None)

    def check_valid(self) -> None:
        """Assert what must always hold; for tests."""
        assert self.waiting == sum(len(k.waiting) for k in self._keys.values())
        assert self.handed == sum(k.handed is not None for k in self._keys.values())
        assert self.handed <= self._limit
        assert len(self._heap) <= 2 * len(self._keys) + SLACK
        for key, found in self._keys.items():
            assert found.waiting or found.handed is not None, f"nothing is left of {key!r}"
            assert len(found._order) <= 2 * len(found.waiting) + SLACK or found.handed
            first = min(found.waiting, default=None)
            assert found.first() == first
            if found.handed is None:
                assert (first, key) in self._heap, f"{key!r} is never its turn"
            for time, timer in found.waiting.items():
                assert (timer.time, timer.key, timer.state) == (time, key, State.WAITING)
