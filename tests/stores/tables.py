"""Cassandra's tables as dictionaries: what the statements of ``queries.py`` do, by their names.

The stores run over it without a server, on any loop, and every write can be made to fail: before it has
had its effect or after. The real server is asked by the same tests, so the two cannot drift apart.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from cassandra.query import UNSET_VALUE

from prosody.errors import StoreError
from prosody.stores.answer import StoreAnswer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from prosody.runtime import Runtime

Rows = list[tuple[Any, ...]]


class Tables:
    """The content, which outlives the stores, and the faults."""

    def __init__(self) -> None:
        self.segments: dict[Any, dict[str, Any]] = defaultdict(dict)
        self.slabs: dict[Any, dict[int, int]] = defaultdict(dict)
        self.timers: dict[Any, dict[tuple[int, int, str], tuple[Any, Any]]] = defaultdict(dict)
        self.times: dict[Any, dict[int, list[int]]] = defaultdict(dict)
        self.queues: dict[Any, dict[str, tuple[Any, ...]]] = defaultdict(dict)
        self.entries: dict[Any, dict[int, tuple[Any, Any]]] = defaultdict(dict)
        self.dedup: set[Any] = set()
        self.written: list[tuple[str, tuple[Any, ...]]] = []
        """Every write that had an effect, in order."""
        self.asked: list[tuple[str, tuple[Any, ...]]] = []
        """Every read."""
        self.fault: Callable[[str], str | None] = lambda name: None
        """Says of a write: None for none, "before" or "after" it has had its effect."""

    def write(self, name: str, values: tuple[Any, ...]) -> None:
        """One statement that writes."""
        when = self.fault(name)
        if when != "before":
            self.written.append((name, values))
            getattr(self, "_" + name.replace(".", "_"))(*values)
        if when is not None:
            raise StoreError(f"{name} failed", retriable=True)

    def read(self, name: str, values: tuple[Any, ...]) -> Rows:
        """One statement that reads."""
        self.asked.append((name, values))
        found: Rows = getattr(self, "_" + name.replace(".", "_"))(*values)
        return found

    # -- segments ----------------------------------------------------------------------------

    def _segment_get(self, segment: Any) -> Rows:
        row = self.segments.get(segment)
        return [(row.get("partitions"), row.get("passed"))] if row else []

    def _segment_put(self, segment: Any, _g: str, _t: str, _p: int, partitions: int) -> None:
        self.segments[segment]["partitions"] = partitions

    def _segment_passed(self, passed: int, segment: Any) -> None:
        self.segments[segment]["passed"] = passed

    def _slabs_get(self, segment: Any) -> Rows:
        return [(start, end, None) for start, end in sorted(self.slabs[segment].items())]

    def _slabs_put(self, segment: Any, start: int, end: int, _ttl: int) -> None:
        self.slabs[segment][start] = end

    def _slabs_forget(self, segment: Any, before: int) -> None:
        slabs = self.slabs[segment]
        for start in [start for start in slabs if start < before]:
            del slabs[start]

    # -- timers ------------------------------------------------------------------------------

    def _timers_load(
        self, segment: Any, slab: int, time: int, kind: int, key: str, until: int, limit: int
    ) -> Rows:
        found = sorted(
            (*place, *rest)
            for place, rest in self.timers[segment, slab].items()
            if place > (time, kind, key) and place[0] <= until
        )
        return found[:limit]

    def _timers_put(
        self,
        segment: Any,
        slab: int,
        time: int,
        kind: int,
        key: str,
        full: Any,
        trace: Any,
        _t: int,
    ) -> None:
        full_key = None if full is UNSET_VALUE else full
        self.timers[segment, slab][time, kind, key] = (full_key, trace)

    def _timers_remove(self, segment: Any, slab: int, time: int, kind: int, key: str) -> None:
        self.timers[segment, slab].pop((time, kind, key), None)

    def _times_get(self, segment: Any, key: str, kind: int) -> Rows:
        return sorted(self.times[segment, key, kind].items())

    def _times_put(
        self, segment: Any, key: str, kind: int, chunk: int, times: list[int], _ttl: int
    ) -> None:
        self.times[segment, key, kind][chunk] = list(times)

    def _times_clear(self, segment: Any, key: str, kind: int) -> None:
        self.times.pop((segment, key, kind), None)

    # -- deferred work -----------------------------------------------------------------------

    def _queues_hashes(self, segment: Any, kind: int, buckets: list[int]) -> Rows:
        return [
            (row[0],) for bucket in buckets for row in self.queues[segment, kind, bucket].values()
        ]

    def _queues_get(self, segment: Any, kind: int, bucket: int, key: str) -> Rows:
        row = self.queues[segment, kind, bucket].get(key)
        return [] if row is None else [(*row[1:], 1)]

    def _queues_put(self, segment: Any, kind: int, bucket: int, key: str, *row: Any) -> None:
        self.queues[segment, kind, bucket][key] = row[:-1]

    def _queues_remove(self, segment: Any, kind: int, bucket: int, key: str) -> None:
        self.queues[segment, kind, bucket].pop(key, None)

    def _entries_next(self, segment: Any, kind: int, key: str, position: int) -> Rows:
        later = sorted(p for p in self.entries[segment, kind, key] if p > position)
        return [(p, *self.entries[segment, kind, key][p]) for p in later[:1]]

    def _entries_positions(self, segment: Any, kind: int, key: str, position: int) -> Rows:
        return [(p,) for p in sorted(self.entries[segment, kind, key]) if p > position]

    def _entries_put(
        self, segment: Any, kind: int, key: str, position: int, ms: int, trace: Any, _ttl: int
    ) -> None:
        self.entries[segment, kind, key][position] = (ms, trace)

    def _entries_remove(self, segment: Any, kind: int, key: str, position: int) -> None:
        self.entries[segment, kind, key].pop(position, None)

    def _entries_clear(self, segment: Any, kind: int, key: str) -> None:
        self.entries.pop((segment, kind, key), None)

    # -- deduplication -----------------------------------------------------------------------

    def _dedup_record(self, identity: Any, _ttl: int) -> None:
        self.dedup.add(identity)


class TableLink:
    """Stands where a :class:`prosody.stores.cassandra.link.Link` would."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def read(self, name: str, *values: Any) -> Rows:
        await asyncio.sleep(0)
        return self._tables.read(name, values)

    async def pages(self, name: str, *values: Any) -> AsyncIterator[Rows]:
        rows = await self.read(name, *values)
        for at in range(0, max(1, len(rows)), 3):
            yield rows[at : at + 3]

    def write(self, name: str, *values: Any) -> StoreAnswer[None]:
        loop = asyncio.get_running_loop()
        done: StoreAnswer[None] = StoreAnswer.open()

        def run() -> None:
            if done.cancelled():
                return
            try:
                self._tables.write(name, values)
            except StoreError as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        loop.call_soon(run)
        return done

    async def times_of(self, segment: Any, key: str, kind: int) -> Rows:
        return await self.read("times.get", segment, key, kind)

    def seen(self, identity: bytes) -> StoreAnswer[bool]:
        loop = asyncio.get_running_loop()
        found: StoreAnswer[bool] = StoreAnswer.open()

        def look() -> None:
            if not found.done():
                found.set_result(identity in self._tables.dedup)

        loop.call_soon(look)
        return found

    def record(self, identity: bytes, ttl: int) -> StoreAnswer[None]:
        return self.write("dedup.record", identity, ttl)


class TableStores:
    """Cassandra's stores over :class:`Tables`."""

    def __init__(
        self,
        tables: Tables,
        runtime: Runtime,
        *,
        slab_size_s: float = 3600.0,
        timers: Any = None,
        deferred: Any = None,
    ) -> None:
        """
        :param timers: the class of the timer store, where a mutant of it is wanted.
        :param deferred: the same for deferred work.
        """
        from prosody.stores.cassandra.dedup import CassandraDedupStore
        from prosody.stores.cassandra.defer import CassandraDeferStore
        from prosody.stores.cassandra.timers import CassandraTimerStore

        link: Any = TableLink(tables)
        retention_s = 365 * 86_400.0
        self.tables = tables
        self.problem: str | None = None
        self.deferred = (deferred or CassandraDeferStore)(
            lambda: link, runtime, retention_s=retention_s
        )
        self.timers = (timers or CassandraTimerStore)(
            lambda: link,
            runtime,
            retention_s=retention_s,
            slab_size_s=slab_size_s,
            on_open=self.deferred.opened,
        )
        self.dedup = CassandraDedupStore(lambda: link, runtime, ttl_s=60.0)

    async def start(self) -> None:
        """Nothing to connect."""

    async def stop(self) -> None:
        """Nothing to close."""
