"""The stores of mock mode. What they hold belongs to the embedded cluster, and outlives every client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.stores.memory.dedup import MemoryDedupStore
from prosody.stores.memory.defer import MemoryDeferStore
from prosody.stores.memory.state import MemoryStoreState
from prosody.stores.memory.timers import MemoryTimerStore

if TYPE_CHECKING:
    from prosody.runtime import Runtime

__all__ = ["MemoryStoreState", "MemoryStores"]


class MemoryStores:
    """The three stores over one state, for one consumer."""

    def __init__(self, state: MemoryStoreState, *, runtime: Runtime, dedup_ttl_s: float) -> None:
        """
        :param dedup_ttl_s: ``idempotence_ttl`` in seconds.
        """
        self.state = state
        self.timers = MemoryTimerStore(state)
        self.deferred = MemoryDeferStore(state)
        self.dedup = MemoryDedupStore(state, runtime, dedup_ttl_s)

    @property
    def keeps_records(self) -> bool:
        return True

    @property
    def problem(self) -> str | None:
        return self.state.problem

    async def start(self) -> None:
        """Nothing is to be connected."""

    async def stop(self) -> None:
        """Nothing is to be closed; the content stays."""
