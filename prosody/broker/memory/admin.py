"""Topics of the embedded broker: make, delete, list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prosody.broker.memory.cluster import MemoryCluster


class MemoryAdmin:
    """Implements ``BrokerAdmin``. There is one copy of everything and it lasts as long as the process,
    so ``replication_factor`` and ``config`` are taken and mean nothing."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster
        self._stopped = False

    async def create_topic(
        self,
        name: str,
        *,
        partitions: int | None = None,
        replication_factor: int | None = None,
        config: Mapping[str, str] | None = None,
    ) -> None:
        self._call("create_topic")
        self._cluster.create_topic(name, partitions)

    async def delete_topic(self, name: str) -> None:
        self._call("delete_topic")
        self._cluster.delete_topic(name)

    async def topics(self) -> frozenset[str]:
        self._call("topics")
        return self._cluster.topics()

    async def stop(self) -> None:
        self._stopped = True

    def _call(self, name: str) -> None:
        if self._stopped:
            raise BrokerError("this admin client is stopped", retriable=False)
        self._cluster.enter(name, "admin")
