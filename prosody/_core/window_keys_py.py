"""The keys of a time window in pure Python: what each used, and which is evicted."""

from __future__ import annotations

from array import array
from collections import deque
from heapq import heapify, heappop, heappush
from math import floor, inf
from typing import TYPE_CHECKING, final

from prosody._core.constants import BUCKET_TICKS, BUCKETS, MAX_RECENT, RECENT_SHARE, RING
from prosody._core.window_clock_py import WindowClock, require

if TYPE_CHECKING:
    from collections.abc import Hashable

EMPTY = array("I", [0] * RING)


@final
class UsedKey:
    """What is remembered of one key: time used by bucket, and the run in progress.

    Bucket ``n`` is kept at ``n % 65``. ``total`` is the sum and ``oldest`` the first bucket with
    time in it. ``number`` counts ends of runs of all keys up to the last one of this. ``serial``
    names its valid entry in the heap (0: none), which was made when its total was ``listed``.
    """

    __slots__ = (
        "began",
        "began_tick",
        "buckets",
        "forgotten",
        "key",
        "listed",
        "number",
        "oldest",
        "running",
        "serial",
        "total",
    )

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.buckets = EMPTY[:]
        self.total = 0
        self.oldest = 0
        self.running = False
        self.forgotten = False
        self.began = 0
        self.began_tick = 0
        self.number = 0
        self.serial = 0
        self.listed = 0


class WindowKeys(WindowClock):
    """The keys remembered, ordered for the two ways to be forgotten: unused, and evicted.

    For the second there is no order until one has to be evicted, nor when half of the room is free.
    """

    __slots__ = (
        "_cache_size",
        "_ends",
        "_heap",
        "_keys",
        "_place",
        "_recent",
        "_recent_size",
        "_running",
        "_serial",
        "_wheel",
    )

    _cache_size: int
    _ends: int
    _heap: list[tuple[int, int, int, UsedKey]]
    _keys: dict[Hashable, UsedKey]
    _place: int
    _recent: deque[UsedKey | None] | None
    _recent_size: int
    _running: int
    _serial: int
    _wheel: list[set[UsedKey]]

    def _set_keys(self, size: int) -> None:
        self._cache_size = size
        self._recent_size = min(size // RECENT_SHARE, MAX_RECENT)
        self._keys = {}
        # The keys with time used, by the place of their oldest bucket.
        self._wheel = [set() for _ in range(RING)]
        # Of the keys that could be evicted: the time used and the number each had when it was put
        # there, or a later, lower time. So the least entry that is true is the least of all.
        self._heap = []
        # Whose runs ended last, None for one that has ended again since; no deque: no order.
        self._recent = None
        self._place = 0
        self._running = 0
        self._ends = 0
        self._serial = 0

    def _move(self, now: float) -> list[Hashable]:
        """Let it be ``now``; returns the keys forgotten by that."""
        if now > self._latest:
            self._latest = now
            if now > self._until:
                return self._turn(now)
        return []

    def _turn(self, now: float) -> list[Hashable]:
        """The latest time, ``now``, may lie in a later bucket; returns the keys forgotten by that."""
        gone: list[Hashable] = []
        bucket = self._bucket_of(now)
        if bucket != self._bucket:
            # Each bucket that the window leaves behind is emptied, in the keys that used it. Their
            # next one stands behind it, so that it comes up in this very loop if it must.
            for left in range(self._bucket + 1, min(bucket, self._bucket + RING) + 1):
                place = left % RING
                states = self._wheel[place]
                if states:
                    self._wheel[place] = set()
                    for state in states:
                        self._empty(state, place, gone)
            self._place = bucket % RING
            if self._recent is not None and 2 * len(self._keys) < self._cache_size:
                self._give_up_order()
            self._sweep()
        self._enter(bucket)
        return gone

    def _empty(self, state: UsedKey, place: int, gone: list[Hashable]) -> None:
        buckets = state.buckets
        state.total -= buckets[place]
        buckets[place] = 0
        if state.total:
            state.oldest += 1
            while not buckets[state.oldest % RING]:
                state.oldest += 1
            self._wheel[state.oldest % RING].add(state)
            if state.serial and state.total < state.listed:
                self._list(state)
        elif state.running:
            state.serial = 0  # its time begins anew, and may be less than what is listed
        else:
            self._forget(state, gone)

    def _charge(self, state: UsedKey, buckets: array[int]) -> int:
        """Add the run in progress, up to now, to ``buckets``; returns the ticks added."""
        tick = self._tick()
        began, began_tick, bucket = state.began, state.began_tick, self._bucket
        if began < bucket - BUCKETS:
            began, began_tick = bucket - BUCKETS, 0
        if began == bucket:
            buckets[bucket % RING] += tick - began_tick
            return tick - began_tick
        buckets[began % RING] += BUCKET_TICKS - began_tick
        for between in range(began + 1, bucket):
            buckets[between % RING] = BUCKET_TICKS
        buckets[bucket % RING] += tick
        return (bucket - began) * BUCKET_TICKS + tick - began_tick

    def _is_recent(self, state: UsedKey) -> bool:
        return state.number > self._ends - self._recent_size

    def _leave_recent(self, recent: deque[UsedKey | None], state: UsedKey) -> None:
        """A run of ``state`` ended; the one that did so longest ago is among the latest no more."""
        recent.append(state)
        if len(recent) > self._recent_size:
            left = recent.popleft()
            # It may have run again since; otherwise it can be evicted from now on.
            if left is not None and not (
                left.running or left.forgotten or left.serial or self._is_recent(left)
            ):
                self._list(left)

    def _order(self) -> None:
        """From now on it is known who could be evicted."""
        size = min(self._recent_size, self._ends)
        latest: list[UsedKey | None] = [None] * size
        for state in self._keys.values():
            if self._is_recent(state):
                latest[state.number - self._ends - 1] = state
            elif not state.running:
                self._list(state)
        self._recent = deque(latest)

    def _give_up_order(self) -> None:
        self._recent = None
        self._heap = []
        for state in self._keys.values():
            state.serial = 0

    def _list(self, state: UsedKey) -> None:
        """Put ``state`` among those that could be evicted, or lower down there."""
        self._serial += 1
        state.serial = self._serial
        state.listed = state.total
        heappush(self._heap, (state.total, state.number, state.serial, state))
        self._sweep()

    def _sweep(self) -> None:
        # Entries made invalid stay until they come up, or until they are too many.
        if len(self._heap) > 2 * len(self._keys) + RING:
            self._heap = [entry for entry in self._heap if entry[2] == entry[3].serial]
            heapify(self._heap)

    def _evict(self, gone: list[Hashable]) -> None:
        """Forget the key with the least time used of those that neither run nor ran last."""
        if self._recent is None:
            self._order()
        while True:
            total, number, serial, state = self._heap[0]
            if serial != state.serial:
                heappop(self._heap)
            elif state.running or self._is_recent(state):
                heappop(self._heap)
                state.serial = 0
            elif (total, number) != (state.total, state.number):
                heappop(self._heap)
                self._list(state)
            else:
                heappop(self._heap)
                place = state.oldest % RING
                self._wheel[place].discard(state)
                if not self._wheel[place]:
                    self._wheel[place] = set()  # an emptied set keeps its memory
                self._forget(state, gone)
                return

    def _forget(self, state: UsedKey, gone: list[Hashable]) -> None:
        gone.append(state.key)
        del self._keys[state.key]
        # What still refers to it, until its turn comes, keeps neither key nor buckets alive.
        state.forgotten = True
        state.serial = 0
        state.key = None
        state.buckets = EMPTY

    def _check_keys(self) -> None:
        running = 0
        listed = {entry[2]: entry for entry in self._heap}
        tick = self._tick() if self._latest > -inf else 0
        if self._latest > -inf:
            require(floor(self._until / self._width) <= self._bucket, "a bucket ends too late")
        require(len(listed) == len(self._heap), "two entries have one serial")
        for key, state in self._keys.items():
            require(state.key is key, "a key is filed under another")
            require(not state.forgotten, "a forgotten key is remembered")
            require(state.running or state.total > 0, "an unused key is remembered")
            require(sum(state.buckets) == state.total, "the total does not add up")
            require(all(ticks <= BUCKET_TICKS for ticks in state.buckets), "a bucket runs over")
            running += state.running
            if state.running:
                require(
                    (state.began, state.began_tick) <= (self._bucket, tick),
                    "a run begins after now",
                )
            if state.total:
                place = state.oldest % RING
                require(self._bucket - BUCKETS <= state.oldest <= self._bucket, "too old a bucket")
                require(state.buckets[place] > 0, "the oldest bucket is empty")
                for bucket in range(self._bucket - BUCKETS, state.oldest):
                    require(state.buckets[bucket % RING] == 0, "an older bucket is not empty")
                require(state in self._wheel[place], "a key is not in the wheel")
                require(0 < state.number <= self._ends, "a number out of range")
            if state.serial:
                require(state.serial in listed, "an entry is lost")
                entry = listed[state.serial]
                require(entry[3] is state, "an entry is another's")
                require(entry[:2] <= (state.total, state.number), "an entry is too high")
                require(entry[0] == state.listed, "an entry's time is another")
            elif not state.running and self._recent is not None:
                require(self._is_recent(state), "a key cannot be evicted")
        require(running == self._running, "running does not add up")
        require(len(self._keys) - running <= self._cache_size, "too many keys are remembered")
        used = sum(state.total > 0 for state in self._keys.values())
        require(used == sum(len(states) for states in self._wheel), "a lost key is in the wheel")
        if self._recent is None:
            require(not self._heap, "an order of what has none")
        else:
            require(len(self._recent) == min(self._recent_size, self._ends), "the recent keys")
        require(self._place == self._bucket % RING, "the place of the bucket")
