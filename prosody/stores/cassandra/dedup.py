"""Which messages are done with, in Cassandra."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.stores.cassandra.settings import time_to_live

if TYPE_CHECKING:
    from collections.abc import Callable

    from prosody.runtime import Runtime
    from prosody.stores.answer import StoreAnswer
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

    def seen(self, identity: bytes) -> StoreAnswer[bool]:
        return self._link().seen(identity)

    def record(self, identity: bytes) -> StoreAnswer[None]:
        return self._link().record(identity, time_to_live(self._ttl_s, self._runtime.wall()))
