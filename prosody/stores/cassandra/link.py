"""What the three stores use of a connected session: reads, grouped writes, look-ups."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any, TypeVar

from prosody.errors import StoreError
from prosody.stores.cassandra.kinds import Lookups, Reads, TimesOf, Writes
from prosody.stores.cassandra.statements import Prepared

if TYPE_CHECKING:
    import uuid
    from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence

    from prosody.stores.answer import StoreAnswer
    from prosody.stores.cassandra.bridge import Rows
    from prosody.stores.cassandra.groups import Groups

T = TypeVar("T")

_ROW_BYTES = 48
_VALUE_BYTES = 12
"""About what a row takes in a batch besides its values, and what each value takes besides itself: it has a
time and an expiry of its own."""
_INT = struct.Struct(">i")
_RECORD_BYTES = _ROW_BYTES + 16 + _INT.size
"""Of a record there is nothing but its key."""


class Link:
    """A connected session as the stores see it."""

    def __init__(self, groups: Groups, prepared: Mapping[str, Any]) -> None:
        self.groups = groups
        self._prepared = {name: Prepared(name, each) for name, each in prepared.items()}
        self._reads = Reads()
        self._writes = Writes()
        self._seen = Lookups(self._prepared["dedup.seen"])
        self._times_of: dict[tuple[uuid.UUID, int], TimesOf] = {}
        self._recorded = self._prepared["dedup.record"]
        self._ttl = 0
        self._ttl_raw = _INT.pack(0)

    async def read(self, name: str, *values: Any) -> Rows:
        """All rows of a query."""
        rows: Rows = []
        async for page in self.pages(name, *values):
            rows = rows + page if rows else page
        return rows

    async def pages(self, name: str, *values: Any) -> AsyncIterator[Rows]:
        """The rows of a query, page by page; the next one is asked for when it is wanted."""
        state: bytes | None = None
        while True:
            bound = self._prepared[name].bind(*values)
            rows, state = await self.groups.submit(self._reads, (bound, state), None, 0)
            yield rows
            if state is None:
                return

    def write(self, name: str, *values: Any) -> asyncio.Future[None]:
        """Run a statement that writes, grouped with others; durable when the future is done."""
        bound = self._prepared[name].bind(*values)
        size = _ROW_BYTES + sum(_VALUE_BYTES + len(v) for v in bound.values if isinstance(v, bytes))
        return self.groups.submit(self._writes, bound, bound.routing_key, size)

    async def times_of(self, segment: uuid.UUID, key: str, kind: int) -> Rows:
        """The rows (chunk, times) of a key's timers, grouped with those of others."""
        if (group := self._times_of.get((segment, kind))) is None:
            group = TimesOf(self._prepared["times.of"], segment, kind)
            self._times_of[segment, kind] = group
        one = self._prepared["times.get"].bind(segment, key, kind)
        rows: Rows | None = await self.groups.submit(group, (one, key), one.routing_key, len(key))
        if rows is None:
            rows = [row[1:] for row in await self.read("times.get", segment, key, kind)]
        return rows

    def seen(self, identity: bytes) -> StoreAnswer[bool]:
        """Whether there is a deduplication record, grouped with others."""
        return self.groups.submit(self._seen, identity, identity, len(identity))

    def record(self, identity: bytes, ttl: int) -> StoreAnswer[None]:
        """Write a deduplication record, grouped with others."""
        # One for every message: its two values are written here, and the second is nearly always the same.
        if ttl != self._ttl:
            self._ttl, self._ttl_raw = ttl, _INT.pack(ttl)
        bound = self._recorded.bound([identity, self._ttl_raw], identity)
        return self.groups.submit(self._writes, bound, identity, _RECORD_BYTES)


async def all_done(futures: Iterable[asyncio.Future[None]]) -> None:
    """Wait until all are done, also when one has failed: no write of a call outlives it.

    :param futures: made one after the other here, so that one that cannot be made undoes the others.
    :raises StoreError: the first failure.
    """
    waiting: list[asyncio.Future[None]] = []
    failure: StoreError | None = None
    try:
        waiting.extend(futures)
        for future in waiting:
            try:
                await future
            except StoreError as error:
                failure = failure or error
    finally:
        # Cancelled: what has not been sent yet is not sent any more.
        for future in waiting:
            future.cancel()
    if failure is not None:
        raise failure


async def all_of(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, run side by side; after a failure the others are cancelled.

    :raises StoreError: the first failure.
    """
    if len(coroutines) == 1:
        return [await coroutines[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
