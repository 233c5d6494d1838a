"""Deferred work in Cassandra.

A row for each key that has a queue (``aio_deferred_keys``), with the head of it and how often it failed,
and a row for each entry (``aio_deferred``). Reads of entries begin beyond the head: what was removed before
it is never read over again. Both rows of a call travel together; whichever of them a crash leaves behind is
harmless: an entry below the head is not seen, a key's row alone still has its head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from cachetools import LRUCache

from prosody.stores.cassandra.keys import BUCKETS, bucket, signed, stored_key, unsigned
from prosody.stores.cassandra.link import all_done
from prosody.stores.cassandra.settings import time_to_live
from prosody.stores.hashing import key_hash, segment_id
from prosody.stores.protocol import Deferred, DeferredKind, DeferredQueue, shorten_error

if TYPE_CHECKING:
    import asyncio
    import uuid
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from prosody.runtime import Runtime
    from prosody.stores.cassandra.link import Link
    from prosody.stores.protocol import Segment

CACHED_QUEUES: Final = 65_536
"""Keys remembered, over all segments; those known to have no queue too."""


MOST_NAMED: Final = 200_000
"""Hashes of keys remembered for a segment and kind; of one with more, each key is asked for."""


class _Head(NamedTuple):
    """A key's row."""

    queue: DeferredQueue
    written_s: float
    """When the row was written last."""


class _Key(NamedTuple):
    """Whose queue, as it is stored."""

    segment: uuid.UUID
    kind: DeferredKind
    bucket: int
    key: str
    hash: int


class CassandraDeferStore:
    """A :class:`~prosody.stores.protocol.DeferStore`."""

    def __init__(self, link: Callable[[], Link], runtime: Runtime, *, retention_s: float) -> None:
        """
        :param link: the connected session; raises ``StoreError`` when there is none.
        """
        self._link = link
        self._runtime = runtime
        self._retention_s = retention_s
        self._opened: dict[uuid.UUID, int] = {}
        """How often each segment was opened; nothing is remembered of one that never was."""
        self._heads: LRUCache[tuple[int, _Key], _Head | None] = LRUCache(CACHED_QUEUES)

        self._named: dict[tuple[uuid.UUID, DeferredKind], set[int]] = {}
        """The hashes of all keys that may have a queue, of segments whose hashes were all read."""
        self._naming: dict[tuple[uuid.UUID, DeferredKind], set[int]] = {}
        """The same, while they are being read."""

    def opened(self, segment: Segment) -> None:
        """The segment was opened anew: another owner may have written to it meanwhile."""
        identity = segment_id(segment)
        self._opened[identity] = self._opened.get(identity, 0) + 1
        for kind in DeferredKind:
            self._named.pop((identity, kind), None)

    def forget(self) -> None:
        """Begin anew, as after a restart."""
        self._heads.clear()
        self._named.clear()
        self._naming.clear()

    async def hashes(self, segment: Segment, kind: DeferredKind) -> AsyncIterator[Sequence[int]]:
        whose = (segment_id(segment), kind)
        opened = self._opened.get(whose[0])
        # What is put while this goes on is added too; and it counts only when it is complete.
        named: set[int] = set()
        self._naming[whose] = named
        pages = self._link().pages("queues.hashes", whose[0], int(kind), list(range(BUCKETS)))
        async for page in pages:
            found = [unsigned(row[0]) for row in page]
            if len(named) <= MOST_NAMED:
                named.update(found)
            yield found
        same = opened == self._opened.get(whose[0]) and self._naming.get(whose) is named
        if opened is not None and same and len(named) <= MOST_NAMED:
            self._named[whose] = named

    async def defer(
        self, segment: Segment, kind: DeferredKind, key: str, entry: Deferred, error: str
    ) -> None:
        queue = DeferredQueue(entry._replace(content=None), 1, shorten_error(error))
        await self._join(self._link(), _key(segment, kind, key), queue)

    async def append(self, segment: Segment, kind: DeferredKind, key: str, entry: Deferred) -> None:
        queue = DeferredQueue(entry._replace(content=None), 0, "")
        await self._join(self._link(), _key(segment, kind, key), queue)

    async def queue(self, segment: Segment, kind: DeferredKind, key: str) -> DeferredQueue | None:
        head = await self._head(self._link(), _key(segment, kind, key))
        return None if head is None else head.queue

    async def failed(
        self, segment: Segment, kind: DeferredKind, key: str, failures: int, error: str
    ) -> None:
        link, whose = self._link(), _key(segment, kind, key)
        if (head := await self._head(link, whose)) is not None:
            queue = head.queue._replace(failures=failures, error=shorten_error(error))
            await self._write_head(link, whose, queue)

    async def advance(
        self, segment: Segment, kind: DeferredKind, key: str, position: int
    ) -> DeferredQueue | None:
        link, whose = self._link(), _key(segment, kind, key)
        if (head := await self._head(link, whose)) is None:
            return None
        if position != head.queue.head.position:
            await link.write("entries.remove", whose.segment, int(kind), whose.key, position)
            return head.queue
        rows = await link.read("entries.next", whose.segment, int(kind), whose.key, position)
        if not rows:
            await self._remove(link, whose)
            return None
        queue = DeferredQueue(_entry(*rows[0]), 0, "")
        # First the new head: with the entry alone removed, a crash would bring it back as the head.
        await self._write_head(link, whose, queue)
        await link.write("entries.remove", whose.segment, int(kind), whose.key, position)
        return queue

    async def positions(self, segment: Segment, kind: DeferredKind, key: str) -> list[int]:
        link, whose = self._link(), _key(segment, kind, key)
        if (head := await self._head(link, whose)) is None:
            return []
        first = head.queue.head.position
        rows = await link.read("entries.positions", whose.segment, int(kind), whose.key, first)
        return [first, *(row[0] for row in rows)]

    async def drop(self, segment: Segment, kind: DeferredKind, key: str) -> None:
        link, whose = self._link(), _key(segment, kind, key)
        await self._remove(link, whose)

    # -- rows ---------------------------------------------------------------------------------

    async def _join(self, link: Link, whose: _Key, new: DeferredQueue) -> None:
        """Put the head of ``new`` into its place, as the head where it is the lowest."""
        head = await self._head(link, whose)
        if head is not None and head.queue.head.position == new.head.position:
            return
        entry = new.head
        now = self._runtime.wall()

        def writes() -> Iterator[asyncio.Future[None]]:
            yield link.write(
                "entries.put", whose.segment, int(whose.kind), whose.key, entry.position,
                entry.timestamp_ms, dict(entry.trace), self._entry_ttl(whose.kind, entry, now),
            )  # fmt: skip
            if queue is not None:
                yield self._put_head(link, whose, queue, now)

        queue: DeferredQueue | None = None
        if head is None or entry.position < head.queue.head.position:
            queue = new
        elif now - head.written_s > self._retention_s:
            # It must not expire before the entry does: written anew, it is kept for twice as long.
            queue = head.queue
        await all_done(writes())
        if queue is not None:
            self._remember(whose, _Head(queue, now))

    async def _head(self, link: Link, whose: _Key) -> _Head | None:
        known = (self._opened.get(whose.segment, 0), whose)
        if known in self._heads:
            return self._heads[known]
        named = self._named.get((whose.segment, whose.kind))
        if named is not None and unsigned(whose.hash) not in named:
            return None  # the usual case when much fails at once: nothing need be read
        rows = await link.read(
            "queues.get", whose.segment, int(whose.kind), whose.bucket, whose.key
        )
        head = None
        if rows and rows[0][0] is not None:
            *entry, failures, error, written_us = rows[0]
            written_s = (written_us or 0) / 1e6
            head = _Head(DeferredQueue(_entry(*entry), failures or 0, error or ""), written_s)
        self._remember(whose, head)
        return head

    async def _write_head(self, link: Link, whose: _Key, queue: DeferredQueue) -> None:
        now = self._runtime.wall()
        await self._put_head(link, whose, queue, now)
        self._remember(whose, _Head(queue, now))

    def _put_head(
        self, link: Link, whose: _Key, queue: DeferredQueue, now: float
    ) -> asyncio.Future[None]:
        self._forget(whose)
        for sets in (self._named, self._naming):
            if (named := sets.get((whose.segment, whose.kind))) is not None:
                named.add(unsigned(whose.hash))
        head = queue.head
        keep_s = 2 * self._retention_s + max(0.0, self._ahead(whose.kind, head, now))
        return link.write(
            "queues.put", whose.segment, int(whose.kind), whose.bucket, whose.key, whose.hash,
            head.position, head.timestamp_ms, dict(head.trace), queue.failures, queue.error,
            time_to_live(keep_s, now),
        )  # fmt: skip

    async def _remove(self, link: Link, whose: _Key) -> None:
        self._forget(whose)
        # The entries first: left without their key's row, they would join the key's next queue.
        await link.write("entries.clear", whose.segment, int(whose.kind), whose.key)
        await link.write("queues.remove", whose.segment, int(whose.kind), whose.bucket, whose.key)
        self._remember(whose, None)

    def _entry_ttl(self, kind: DeferredKind, entry: Deferred, now: float) -> int:
        return time_to_live(max(0.0, self._ahead(kind, entry, now)) + self._retention_s, now)

    def _ahead(self, kind: DeferredKind, entry: Deferred, now: float) -> float:
        """Seconds until a deferred timer's own time; a message is never ahead."""
        return entry.position - now if kind is DeferredKind.TIMER else 0.0

    def _remember(self, whose: _Key, head: _Head | None) -> None:
        if opened := self._opened.get(whose.segment):
            self._heads[opened, whose] = head

    def _forget(self, whose: _Key) -> None:
        self._heads.pop((self._opened.get(whose.segment, 0), whose), None)


def _key(segment: Segment, kind: DeferredKind, key: str) -> _Key:
    return _Key(segment_id(segment), kind, bucket(key), stored_key(key), signed(key_hash(key)))


def _entry(position: int, timestamp_ms: int, trace: dict[str, str] | None) -> Deferred:
    return Deferred(position, timestamp_ms, dict(trace or {}))
