"""The time window in pure Python: the twin of ``rolling_window_c.pyx``, text by text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, final

from prosody._core.constants import BUCKET_TICKS, BUCKETS, RING
from prosody._core.window_clock_py import count, to_float, two_arguments, window_seconds
from prosody._core.window_keys_py import UsedKey, WindowKeys

if TYPE_CHECKING:
    from collections.abc import Hashable

TICKS: Final = float(BUCKET_TICKS)


@final
class TimeWindow(WindowKeys):
    """Time used per key over a sliding window; see ``protocols_qos.TimeWindow``.

    ``used`` is never below the exact figure and at most half a bucket (``window / 128``) above it;
    at the end of a bucket it is exact. Reason: how the time is spread in the oldest bucket, of which
    the window covers only a part, is not known, so as much of it is counted as that part can hold.
    Hence ``room_at`` is never too early and at most a bucket late, and a key that always ran has used
    ``window``, the most there can be. Besides, each run may be off by one tick, ``window / 2**37``,
    and by the float spacing of its times.

    A key is remembered while it runs or has used time in a bucket that the window touches. Of those
    that do not run at most ``cache_size`` are kept. What goes is the key with the least time in the
    buckets that the window touches (equal: whose last run ended first), but none whose last run is
    among the latest ``cache_size // 8`` (at most 1,024) of all keys. An evicted key reads as unused.

    Nobody can bring that about for a key that used much, not with any number of keys: where
    ``slots`` runs take place at a time, at most ``slots * window * 65 / 64 / u`` keys can have used
    ``u`` seconds; with more places than that in seven eighths of the cache, one with less goes. Nor can
    a busy key stay unseen because each of its runs is short beside what others used: it is not
    looked at until ``cache_size // 8`` runs of others have ended since its last one.

    ``now`` never goes back: one below the latest of any call counts as that. A ``now`` more than
    2**50 buckets from time 0 is refused.

    A call costs amortised O(log cache_size); the first after a bucket has ended goes through the keys
    that used time in the one that leaves the window. State is made in ``__new__``, so that there is no
    half-made window to be had.
    """

    __slots__ = ()

    def __new__(cls, *arguments: Any, **named: Any) -> Self:
        window, cache_size = two_arguments("TimeWindow", "window", "cache_size", arguments, named)
        seconds = window_seconds("TimeWindow", window)
        size = count("TimeWindow", "cache_size", cache_size)
        self = object.__new__(cls)
        self._set_clock(seconds)
        self._set_keys(size)
        return self

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError(f"type '{__name__}.TimeWindow' is not an acceptable base type")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a TimeWindow is live state: it can be neither copied nor pickled")

    def __repr__(self) -> str:
        return (
            f"TimeWindow(window={self._window!r}, cache_size={self._cache_size}, "
            f"remembered={len(self._keys)}, running={self._running})"
        )

    @property
    def remembered(self) -> int:
        """Keys kept: those that run, and at most ``cache_size`` others with time used."""
        return len(self._keys)

    @property
    def running(self) -> int:
        """Keys that run."""
        return self._running

    def begin(self, key: Hashable, now: float) -> None:
        """A run of ``key`` begins at ``now`` (seconds).

        :raises TypeError: when ``key`` cannot be hashed, or ``now`` is no float or int.
        :raises ValueError: when one runs already, or ``now`` is not finite or too far from 0.
        """
        if type(now) is not float or not self._since <= now <= self._until:
            now = self._checked("begin", now)
        state = self._keys.get(key)
        if state is not None and state.running:
            raise ValueError(f"begin: a run of key {key!r} is in progress already")
        # Bound to a name here and below: keys die, and may call back, when all is done.
        gone = None
        latest = self._latest
        if now > latest:
            self._latest = latest = now
            if now > self._until:
                gone = self._turn(now)
        if state is None or state.forgotten:
            state = UsedKey(key)
            self._keys[key] = state
        # As ``_tick``, here and below.
        tick = int((latest - self._start) / self._width * TICKS)
        state.began_tick = tick if 0 <= tick < BUCKET_TICKS else self._tick()
        state.running = True
        state.began = self._bucket
        self._running += 1
        del gone

    def end(self, key: Hashable, now: float) -> None:
        """The run of ``key`` ends at ``now`` (seconds).

        :raises KeyError: when nothing of ``key`` runs.
        :raises TypeError: when ``key`` cannot be hashed, or ``now`` is no float or int.
        :raises ValueError: when ``now`` is not finite or too far from 0.
        """
        if type(now) is not float or not self._since <= now <= self._until:
            now = self._checked("end", now)
        state = self._keys.get(key)
        if state is None or not state.running:
            raise KeyError(f"end: nothing of key {key!r} runs")
        gone = None
        latest = self._latest
        if now > latest:
            self._latest = latest = now
            if now > self._until:
                gone = self._turn(now)
        if state.began == self._bucket:
            tick = int((latest - self._start) / self._width * TICKS)
            added = (tick if 0 <= tick < BUCKET_TICKS else self._tick()) - state.began_tick
            state.buckets[self._place] += added
        else:
            added = self._charge(state, state.buckets)
        total = state.total
        if added and not total:
            state.oldest = max(state.began, self._bucket - BUCKETS)
            self._wheel[state.oldest % RING].add(state)
        state.total = total = total + added
        state.running = False
        self._running -= 1
        if not total:
            gone = gone or []
            self._forget(state, gone)
            return
        state.number = self._ends = self._ends + 1
        if self._recent is not None:
            self._leave_recent(self._recent, state)
        if len(self._keys) - self._running > self._cache_size:
            gone = gone or []
            self._evict(gone)

    def used(self, key: Hashable, now: float) -> float:
        """Seconds used in ``(now - window, now]``, a run in progress counted up to ``now``.

        Never too low, and too high by at most half a bucket.

        :raises TypeError: when ``key`` cannot be hashed, or ``now`` is no float or int.
        :raises ValueError: when ``now`` is not finite or too far from 0.
        """
        if type(now) is not float or not self._since <= now <= self._until:
            now = self._checked("used", now)
        state = self._keys.get(key)
        gone = None
        if now > self._latest:
            self._latest = now
            if now > self._until:
                gone = self._turn(now)
        if state is None or state.forgotten:
            return 0.0
        total = state.total
        # Nothing is in the bucket that the window covers in part, but where it is the oldest one used.
        oldest = 0
        if total and state.oldest == self._bucket - BUCKETS:
            oldest = state.buckets[(self._bucket + 1) % RING]
        if state.running:
            ahead = self._bucket - state.began
            if ahead < BUCKETS:
                total += ahead * BUCKET_TICKS + self._tick() - state.began_tick
            else:
                part = BUCKET_TICKS - (state.began_tick if ahead == BUCKETS else 0)
                oldest += part
                total += part + (BUCKETS - 1) * BUCKET_TICKS + self._tick()
        if oldest:
            total -= oldest - min(oldest, BUCKET_TICKS - self._tick())
        del gone
        return total * self._unit

    def room_at(self, key: Hashable, limit: float, now: float) -> float:
        """The earliest time, from ``now`` on, at which ``used`` is at most ``limit`` seconds.

        As if nothing of the key ran from ``now`` on. ``used`` at that time is at most ``limit``, and
        more just before, within float spacing. Never too early, and late by at most a bucket.

        :raises TypeError: when ``key`` cannot be hashed, or ``limit`` or ``now`` is no float or int.
        :raises ValueError: when ``limit`` is negative or not a number, or ``now`` is not finite or
            too far from 0.
        """
        if type(limit) is not float:
            if type(limit) is not int:
                raise TypeError(f"room_at: limit must be a float, not {type(limit).__name__}")
            limit = to_float(limit)
        if not limit >= 0.0:
            raise ValueError(f"room_at: limit must be 0 or more seconds, not {limit!r}")
        now = self._checked("room_at", now)
        state = self._keys.get(key)
        gone = self._move(now)
        if state is None or state.forgotten or limit >= self._window:
            return self._latest
        unit = self._unit
        allowed = int(limit / unit)
        # The quotient is rounded: the most ticks whose seconds are at most the limit.
        if allowed * unit > limit:
            allowed -= 1
        elif (allowed + 1) * unit <= limit:
            allowed += 1
        buckets = state.buckets[:]
        full = state.total
        if state.running:
            full += self._charge(state, buckets)
        bucket = self._bucket
        oldest = buckets[(bucket + 1) % RING]
        full -= oldest
        if full + min(oldest, BUCKET_TICKS - self._tick()) <= allowed:
            return self._latest
        while full > allowed:
            bucket += 1
            oldest = buckets[(bucket + 1) % RING]
            full -= oldest
        # In this bucket ``oldest`` is cut down to what the limit leaves, at the latest at its end.
        tick = BUCKET_TICKS - (allowed - full)
        del gone
        if tick == BUCKET_TICKS:
            return self._reached(bucket + 1, 0)
        return self._reached(bucket, tick)

    def check_valid(self) -> None:
        """Assert the invariants; for tests.

        :raises AssertionError: when one does not hold.
        """
        self._check_keys()
