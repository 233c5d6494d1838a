"""Timers in Cassandra.

Two indexes: by time in slabs (``aio_timers``), from which timers are loaded, and by key
(``aio_timer_keys``). **Whatever lies in a slab is listed under its key**, at every moment and after every
crash: a key's row is written before a timer is put into a slab, and rewritten after it was taken out. So
what clears a key finds all that could still fire. And a slab is registered before anything lies in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachetools import LRUCache
from cassandra.query import UNSET_VALUE

from prosody.stores.cassandra.keys import stored_key
from prosody.stores.cassandra.link import all_done, all_of
from prosody.stores.cassandra.segments import OpenSegment
from prosody.stores.cassandra.settings import expiry, time_to_live
from prosody.stores.cassandra.slabs import Slab, Slabs
from prosody.stores.cassandra.times import KeyTimes
from prosody.stores.hashing import segment_id
from prosody.stores.protocol import Place, StoredTimer, TimerKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prosody.runtime import Runtime
    from prosody.stores.cassandra.link import Link
    from prosody.stores.protocol import Segment

CACHED_TIMES: Final = 100_000
"""Keys and their times remembered, over all segments."""
SLABS_AT_ONCE: Final = 16
"""Slabs looked into together at most, when those before were empty."""

_KeyId = tuple[int, str, int]
"""Of an open segment, of a key, and of a kind."""


class CassandraTimerStore:
    """A :class:`~prosody.stores.protocol.TimerStore`."""

    def __init__(
        self,
        link: Callable[[], Link],
        runtime: Runtime,
        *,
        retention_s: float,
        slab_size_s: float,
        on_open: Callable[[Segment], None] = lambda segment: None,
    ) -> None:
        """
        :param link: the connected session; raises ``StoreError`` when there is none.
        :param on_open: told of each segment that is opened.
        """
        self._link = link
        self._runtime = runtime
        self._retention_s = retention_s
        self._slab_size = max(1, round(slab_size_s))
        self._on_open = on_open
        self._segments: dict[Segment, OpenSegment] = {}
        self._times: LRUCache[_KeyId, KeyTimes] = LRUCache(
            CACHED_TIMES, getsizeof=lambda times: len(times) + 1
        )

    def forget(self) -> None:
        """Begin anew, as after a restart."""
        self._segments.clear()
        self._times.clear()

    async def open(self, segment: Segment, partitions: int) -> int | None:
        link = self._link()
        opened, before = await self._read_segment(link, segment)
        if before != partitions:
            await link.write("segment.put", opened.id, *segment, partitions)
        self._segments[segment] = opened
        self._on_open(segment)
        return before

    async def load(
        self, segment: Segment, after: Place | None, until: int, limit: int
    ) -> Sequence[StoredTimer]:
        link = self._link()
        opened = await self._opened(link, segment)
        # No kind is below 0, so this is before everything of that second.
        start = (opened.passed, -1, "")
        if after is not None:
            start = max(start, (after.time, int(after.kind), stored_key(after.key)))
        found: list[StoredTimer] = []
        slabs = opened.slabs.between(start[0], until)
        at, together = 0, 1
        while at < len(slabs) and len(found) < limit:
            some = slabs[at : at + together]
            left = limit - len(found)
            reads = [
                link.read("timers.load", opened.id, slab, *start, until, left) for slab in some
            ]
            for rows in await all_of(reads):
                found += [_timer(row) for row in rows[: limit - len(found)]]
            at += together
            together = min(SLABS_AT_ONCE, 2 * together) if not found else 1
        return found

    async def add(self, segment: Segment, timer: StoredTimer) -> None:
        link = self._link()
        opened = await self._opened(link, segment)
        times = await self._key_times(link, opened, timer.key, timer.kind)
        await self._put(link, opened, times, timer)

    async def remove(self, segment: Segment, place: Place) -> None:
        link = self._link()
        opened = await self._opened(link, segment)
        times = await self._key_times(link, opened, place.key, place.kind)
        await self._take_from_slabs(link, opened, place.key, place.kind, [place.time])
        if place.time in times:
            if len(times) == 1:
                await self._clear_times(link, opened, place.key, place.kind)
            else:
                await self._write_times(link, opened, place, times, *times.without(place.time))

    async def times(self, segment: Segment, key: str, kind: TimerKind) -> list[int]:
        link = self._link()
        opened = await self._opened(link, segment)
        return (await self._key_times(link, opened, key, kind)).all()

    async def replace(self, segment: Segment, timer: StoredTimer) -> list[int]:
        link = self._link()
        opened = await self._opened(link, segment)
        times = await self._key_times(link, opened, timer.key, timer.kind)
        others = [time for time in times.all() if time != timer.time]
        await self._put(link, opened, times, timer)
        if others:
            await self._take_from_slabs(link, opened, timer.key, timer.kind, others)
            for chunk, kept in times.only(timer.time):
                await self._write_times(link, opened, timer.place, times, chunk, kept)
        return others

    async def clear(self, segment: Segment, key: str, kind: TimerKind) -> list[int]:
        link = self._link()
        opened = await self._opened(link, segment)
        gone = (await self._key_times(link, opened, key, kind)).all()
        if gone:
            await self._take_from_slabs(link, opened, key, kind, gone)
            await self._clear_times(link, opened, key, kind)
        return gone

    async def passed(self, segment: Segment, before: int) -> None:
        link = self._link()
        await (await self._opened(link, segment)).pass_before(link, before)

    # -- segments -----------------------------------------------------------------------------

    async def _opened(self, link: Link, segment: Segment) -> OpenSegment:
        if (opened := self._segments.get(segment)) is None:
            # Not opened (any more, after a restart of the stores): the same, but for the count.
            read, _ = await self._read_segment(link, segment)
            opened = self._segments.setdefault(segment, read)
        return opened

    async def _read_segment(self, link: Link, segment: Segment) -> tuple[OpenSegment, int | None]:
        identity = segment_id(segment)
        rows = await link.read("segment.get", identity)
        before, passed = rows[0] if rows else (None, None)
        slabs = []
        async for page in link.pages("slabs.get", identity):
            now = self._runtime.wall()
            slabs += [Slab(start, end, expiry(ttl or 0, now)) for start, end, ttl in page if end]
        return OpenSegment(segment, Slabs(slabs), passed or 0), before

    # -- the two indexes ----------------------------------------------------------------------

    async def _put(
        self, link: Link, opened: OpenSegment, times: KeyTimes, timer: StoredTimer
    ) -> None:
        opened.begin_adding(timer.time)
        try:
            slab = await opened.slab_for(
                link, timer.time, self._slab_size, self._retention_s, self._runtime.wall
            )
            if timer.time not in times:
                chunk, listed = times.with_added(timer.time)
                await self._write_times(link, opened, timer.place, times, chunk, listed)
            key = stored_key(timer.key)
            await link.write(
                "timers.put", opened.id, slab, timer.time, int(timer.kind), key,
                UNSET_VALUE if key == timer.key else timer.key, dict(timer.trace),
                self._ttl(timer.time),
            )  # fmt: skip
        finally:
            opened.end_adding(timer.time)

    async def _take_from_slabs(
        self, link: Link, opened: OpenSegment, key: str, kind: TimerKind, times: Sequence[int]
    ) -> None:
        found = [(time, opened.slabs.covering(time)) for time in times]
        await all_done(
            link.write("timers.remove", opened.id, slab.start, time, int(kind), stored_key(key))
            for time, slab in found
            if slab is not None  # what has been passed is gone
        )

    async def _key_times(
        self, link: Link, opened: OpenSegment, key: str, kind: TimerKind
    ) -> KeyTimes:
        known = self._times.get((opened.serial, key, kind))
        if known is None:
            rows = await link.times_of(opened.id, stored_key(key), int(kind))
            known = KeyTimes(rows)
            self._remember(opened, key, kind, known)
        return known

    async def _write_times(
        self,
        link: Link,
        opened: OpenSegment,
        place: Place,
        times: KeyTimes,
        chunk: int,
        listed: list[int],
    ) -> None:
        # Until it is known to be written, nothing is known of this key.
        self._times.pop((opened.serial, place.key, place.kind), None)
        ttl = self._ttl(max(listed, default=0))
        key = stored_key(place.key)
        await link.write("times.put", opened.id, key, int(place.kind), chunk, listed, ttl)
        times.put(chunk, listed)
        self._remember(opened, place.key, place.kind, times)

    async def _clear_times(
        self, link: Link, opened: OpenSegment, key: str, kind: TimerKind
    ) -> None:
        self._times.pop((opened.serial, key, kind), None)
        await link.write("times.clear", opened.id, stored_key(key), int(kind))
        self._remember(opened, key, kind, KeyTimes())

    def _remember(self, opened: OpenSegment, key: str, kind: TimerKind, times: KeyTimes) -> None:
        if len(times) < CACHED_TIMES:
            self._times[opened.serial, key, kind] = times

    def _ttl(self, time: int) -> int:
        now = self._runtime.wall()
        return time_to_live(max(0.0, time - now) + self._retention_s, now)


def _timer(row: tuple[int, int, str, str | None, dict[str, str] | None]) -> StoredTimer:
    time, kind, key, full_key, trace = row
    return StoredTimer(
        time, TimerKind(kind), key if full_key is None else full_key, dict(trace or {})
    )
