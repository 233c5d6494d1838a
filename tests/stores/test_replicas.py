"""What the driver knows of the ring, read into plain numbers, says the same as the driver."""

from __future__ import annotations

import random
import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from cassandra.connection import DefaultEndPoint
from cassandra.metadata import KeyspaceMetadata, MD5Token, Metadata, Murmur3Token, TokenMap
from cassandra.policies import SimpleConvictionPolicy
from cassandra.pool import Host
from hypothesis import given
from hypothesis import strategies as st

from prosody.stores.cassandra import replicas as module
from prosody.stores.cassandra.replicas import UNKNOWN, ReplicaSets

KEYS = [uuid.UUID(int=n * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128).bytes for n in range(60)]


def ring(nodes: int, tokens: int, copies: int, seed: int, kind: Any = Murmur3Token) -> Metadata:
    """A cluster's metadata: nodes in two datacentres, with so many tokens each, and a keyspace."""
    chance = random.Random(seed)
    owners = {}
    for number in range(nodes):
        host = Host(DefaultEndPoint(f"10.0.0.{number}"), SimpleConvictionPolicy)
        host.set_location_info(f"dc{number % 2}", "rack")
        for _ in range(tokens):
            owners[kind(chance.randrange(-(2**63) if kind is Murmur3Token else 0, 2**63))] = host
    metadata = Metadata()
    metadata.token_map = TokenMap(kind, owners, sorted(owners), metadata)
    strategy = {"replication_factor": str(copies)}
    metadata.keyspaces = {"k": KeyspaceMetadata("k", True, "SimpleStrategy", strategy)}
    return metadata


def same_as_the_driver(sets: ReplicaSets, metadata: Metadata, here: str | None) -> int:
    """How many sets there are among the keys; they are told apart as the driver tells them apart."""
    numbers = {}
    for key in KEYS:
        nodes = frozenset(
            host
            for host in metadata.get_replicas("k", key)
            if here is None or host.datacenter == here
        )
        assert numbers.setdefault(nodes, sets.number(key)) == sets.number(key)
    assert len(set(numbers.values())) == len(numbers)
    return len(numbers)


@given(
    st.integers(1, 6), st.integers(1, 8), st.integers(1, 3), st.integers(0, 999),
    st.sampled_from([Murmur3Token, MD5Token]), st.sampled_from([None, "dc0"]),
)  # fmt: skip
def test_sets_are_those_of_the_driver(
    nodes: int, tokens: int, copies: int, seed: int, kind: Any, here: str | None
) -> None:
    metadata = ring(nodes, tokens, copies, seed, kind)
    same_as_the_driver(ReplicaSets(metadata, "k", here), metadata, here)


def test_a_ring_that_changes_is_read_again() -> None:
    metadata = ring(4, 8, 1, 1)
    sets = ReplicaSets(metadata, "k", None)
    assert same_as_the_driver(sets, metadata, None) == 4
    metadata.token_map = ring(6, 8, 1, 2).token_map
    metadata.token_map._metadata = metadata
    assert same_as_the_driver(sets, metadata, None) == 6
    metadata.token_map.rebuild_keyspace("k")
    assert same_as_the_driver(sets, metadata, None) == 6


def test_without_a_ring_all_keys_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    metadata: Any = SimpleNamespace(token_map=None)
    assert ReplicaSets(metadata, "k", None).number(b"x") == UNKNOWN
    metadata = ring(4, 8, 1, 1)
    assert {ReplicaSets(metadata, "none", None).number(key) for key in KEYS} == {UNKNOWN}

    def missing(key: bytes) -> int:
        raise module.NoMurmur3

    monkeypatch.setattr(Murmur3Token, "hash_fn", missing)
    assert {ReplicaSets(metadata, "k", None).number(key) for key in KEYS} == {UNKNOWN}
