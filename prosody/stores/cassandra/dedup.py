"""Which messages are done with, in Cassandra."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.stores.cassandra.settings import time_to_live

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable

    from prosody.runtime import Runtime
    from prosody.stores.cassandra.link import Link


class CassandraDedupStore:
    """A :class:`~prosody.stores.protocol.DedupStore`."""

    def __init__(self, link: Callable[[], Link], runtime: Runtime, *, ttl_s: float) -> None:
        """
        :param link: the connected session; raises ``StoreError`` when there is none.
        :param ttl_s: how long a record is kept, in seconds.
        """
        self._link = link
        self._runtime = runtime
        self._ttl_s = ttl_s

    async def seen(self, identity: uuid.UUID) -> bool:
        return await self._link().seen(identity)

    async def record(self, identity: uuid.UUID) -> None:
        ttl = time_to_live(self._ttl_s, self._runtime.wall())
        await self._link().write("dedup.record", identity, ttl)
