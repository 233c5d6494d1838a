"""Deferred work in memory, the records themselves included."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from prosody.stores.hashing import key_hash
from prosody.stores.memory.state import Queue
from prosody.stores.protocol import DeferredQueue, shorten_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from prosody.stores.memory.state import MemoryStoreState
    from prosody.stores.protocol import Deferred, DeferredKind, Segment

PAGE = 1000
"""Hashes in a page."""


class MemoryDeferStore:
    """A :class:`~prosody.stores.protocol.DeferStore` over the embedded cluster's state."""

    def __init__(self, state: MemoryStoreState) -> None:
        self._state = state

    async def hashes(self, segment: Segment, kind: DeferredKind) -> AsyncIterator[Sequence[int]]:
        with self._state.lock:
            keys = iter(list(self._state.queues_of(segment, kind)))
        while True:
            await self._state.begin("deferred.hashes")
            page = [key_hash(key) for key in islice(keys, PAGE)]
            if not page:
                return
            yield page

    async def defer(
        self, segment: Segment, kind: DeferredKind, key: str, entry: Deferred, error: str
    ) -> None:
        await self._state.begin("deferred.defer")
        with self._state.lock:
            queue = self._state.queues_of(segment, kind).setdefault(key, Queue())
            if queue.add(entry):
                queue.failures, queue.error = 1, shorten_error(error)
        await self._state.end("deferred.defer")

    async def append(self, segment: Segment, kind: DeferredKind, key: str, entry: Deferred) -> None:
        await self._state.begin("deferred.append")
        with self._state.lock:
            queue = self._state.queues_of(segment, kind).setdefault(key, Queue())
            if queue.add(entry):
                queue.failures, queue.error = 0, ""
        await self._state.end("deferred.append")

    async def queue(self, segment: Segment, kind: DeferredKind, key: str) -> DeferredQueue | None:
        await self._state.begin("deferred.queue")
        with self._state.lock:
            return _seen(self._state.queues_of(segment, kind).get(key))

    async def failed(
        self, segment: Segment, kind: DeferredKind, key: str, failures: int, error: str
    ) -> None:
        await self._state.begin("deferred.failed")
        with self._state.lock:
            if (queue := self._state.queues_of(segment, kind).get(key)) is not None:
                queue.failures, queue.error = failures, shorten_error(error)
        await self._state.end("deferred.failed")

    async def advance(
        self, segment: Segment, kind: DeferredKind, key: str, position: int
    ) -> DeferredQueue | None:
        await self._state.begin("deferred.advance")
        with self._state.lock:
            queues = self._state.queues_of(segment, kind)
            if (queue := queues.get(key)) is not None:
                was_head = next(iter(queue.positions)) == position
                if queue.positions.discard(position):
                    del queue.entries[position]
                if not queue.entries:
                    del queues[key]
                    queue = None
                elif was_head:
                    queue.failures, queue.error = 0, ""
            left = _seen(queue)
        await self._state.end("deferred.advance")
        return left

    async def positions(self, segment: Segment, kind: DeferredKind, key: str) -> list[int]:
        await self._state.begin("deferred.positions")
        with self._state.lock:
            queue = self._state.queues_of(segment, kind).get(key)
            return [] if queue is None else list(queue.positions)

    async def drop(self, segment: Segment, kind: DeferredKind, key: str) -> None:
        await self._state.begin("deferred.drop")
        with self._state.lock:
            self._state.queues_of(segment, kind).pop(key, None)
        await self._state.end("deferred.drop")


def _seen(queue: Queue | None) -> DeferredQueue | None:
    if queue is None:
        return None
    return DeferredQueue(queue.entries[next(iter(queue.positions))], queue.failures, queue.error)
