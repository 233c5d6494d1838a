"""Which messages are done with, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import uuid

    from prosody.runtime import Runtime
    from prosody.stores.memory.state import MemoryStoreState

MOST_RECORDS = 500_000
"""The oldest is forgotten for one more: deduplication is best effort, memory is not endless."""


class MemoryDedupStore:
    """A :class:`~prosody.stores.protocol.DedupStore` over the embedded cluster's state."""

    def __init__(self, state: MemoryStoreState, runtime: Runtime, ttl_s: float) -> None:
        """
        :param ttl_s: how long a record is kept, in seconds.
        """
        self._state = state
        self._runtime = runtime
        self._ttl_s = ttl_s

    async def seen(self, identity: uuid.UUID) -> bool:
        await self._state.begin("dedup.seen")
        with self._state.lock:
            return self._state.seen.get(identity, 0.0) > self._runtime.wall()

    async def record(self, identity: uuid.UUID) -> None:
        await self._state.begin("dedup.record")
        now = self._runtime.wall()
        with self._state.lock:
            seen = self._state.seen
            seen.pop(identity, None)
            seen[identity] = now + self._ttl_s
            # Whoever was recorded first is looked at first; of equal times-to-live it expires first too.
            while seen[oldest := next(iter(seen))] <= now or len(seen) > MOST_RECORDS:
                del seen[oldest]
        await self._state.end("dedup.record")
