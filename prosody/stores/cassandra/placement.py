"""Which node gets a request: a replica of its data, in our datacentre, in our rack where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cassandra.policies import DCAwareRoundRobinPolicy, HostDistance, TokenAwarePolicy

if TYPE_CHECKING:
    from collections.abc import Iterator


class PreferredRackPolicy(TokenAwarePolicy):  # type: ignore[misc]  # the driver has no types
    """Replicas first, each in turn, those of the preferred rack before the others; then any local node.

    Nodes of other datacentres are not asked: LOCAL_QUORUM of another datacentre may not have what was
    written to LOCAL_QUORUM of this one.
    """

    def __init__(self, datacenter: str | None, rack: str | None) -> None:
        super().__init__(DCAwareRoundRobinPolicy(datacenter or ""))
        self._rack = rack
        self._turn = 0

    def make_query_plan(self, working_keyspace: Any = None, query: Any = None) -> Iterator[Any]:
        """The nodes to try, in order."""
        child = self._child_policy
        keyspace = query.keyspace if query and query.keyspace else working_keyspace
        key = query.routing_key if query else None
        first: list[Any] = []
        if keyspace is not None and key is not None:
            first = [
                host
                for host in self._cluster_metadata.get_replicas(keyspace, key)
                if host.is_up and child.distance(host) == HostDistance.LOCAL
            ]
            if len(first) > 1:
                self._turn += 1
                turn = self._turn % len(first)
                first = self._by_rack(first[turn:] + first[:turn])
        yield from first
        others = child.make_query_plan(keyspace, query)
        yield from (host for host in self._by_rack(list(others)) if host not in first)

    def _by_rack(self, hosts: list[Any]) -> list[Any]:
        if self._rack is None:
            return hosts
        return sorted(hosts, key=lambda host: host.rack != self._rack)  # keeps the order else
