"""Which nodes hold the data of a routing key, asked for every operation."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Final

from cassandra.metadata import NoMurmur3

UNKNOWN: Final = 0
"""Stands for all nodes while the driver does not know which ones hold what."""


class ReplicaSets:
    """A number for each set of nodes of our datacentre that together hold something.

    The driver's own search compares token objects, which takes as long as all the rest of an operation.
    So its map is read once into plain numbers, and again when it has made another one.
    """

    def __init__(self, metadata: Any, keyspace: str, datacenter: str | None) -> None:
        """
        :param metadata: the driver's, of a connected cluster.
        :param datacenter: None counts the nodes of all.
        """
        self._metadata = metadata
        self._keyspace = keyspace
        self._datacenter = datacenter
        self._numbers: dict[frozenset[Any], int] = {}
        self._read_from: Any = None
        self._hash: Any = None
        self._ends: list[Any] = []
        """Where the ranges of the ring end, ascending."""
        self._sets: list[int] = []
        """The number of each range."""
        self._only: int | None = UNKNOWN
        """The number of all ranges, where they have the same."""

    def number(self, routing_key: bytes) -> int:
        """That of the nodes that hold the data of a routing key."""
        token_map = self._metadata.token_map
        if token_map is None:
            return UNKNOWN
        found = token_map.tokens_to_hosts_by_ks.get(self._keyspace)
        if found is None or found is not self._read_from:
            self._read(token_map)
        if self._only is not None:
            return self._only
        at = bisect_left(self._ends, self._hash(routing_key))
        return self._sets[at if at < len(self._sets) else 0]

    def _read(self, token_map: Any) -> None:
        self._metadata.get_replicas(self._keyspace, b"")  # has the driver make its map
        found = token_map.tokens_to_hosts_by_ks.get(self._keyspace)
        self._only = UNKNOWN
        self._read_from = found
        if not found:
            return
        try:
            token_map.token_class.hash_fn(b"")
        except NoMurmur3:
            return  # a driver without its C part cannot tell
        self._hash = token_map.token_class.hash_fn
        self._ends = [token.value for token in token_map.ring]
        self._sets = [self._number_of(found[token]) for token in token_map.ring]
        if len(set(self._sets)) > 1:
            self._only = None
        else:
            self._only = self._sets[0]

    def _number_of(self, hosts: Any) -> int:
        here = self._datacenter
        nodes = frozenset(host for host in hosts if here is None or host.datacenter == here)
        return self._numbers.setdefault(nodes, len(self._numbers) + 1)
