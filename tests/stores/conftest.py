"""The contract tests run over the stores in memory, over Cassandra's stores on tables in memory, and over
a real Cassandra."""

from __future__ import annotations

import itertools
import uuid
from typing import TYPE_CHECKING

import pytest

from prosody.broker.memory import MemoryCluster
from prosody.runtime import SystemRuntime
from prosody.stores.memory import MemoryStores, MemoryStoreState
from prosody.stores.protocol import Segment
from tests.servers import mortal_cassandra
from tests.stores.support import Place, drop_keyspace, wait_for_login
from tests.stores.tables import Tables, TableStores

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from prosody.stores.protocol import Stores
    from tools.services import CassandraServer

_numbers = itertools.count()


@pytest.fixture(scope="session")
def keyspace(cassandra_contact: str) -> Iterator[str]:
    """A keyspace of this run on the session's Cassandra."""
    name = f"run_{uuid.uuid4().hex[:12]}"
    yield name
    drop_keyspace(cassandra_contact, name)


@pytest.fixture(params=["memory", "tables", pytest.param("cassandra", marks=pytest.mark.real)])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """Where stores can be had, again and again, over one content."""
    runtime = SystemRuntime()

    def memory(slab_size_s: float) -> Stores:
        state = cluster.attached(MemoryStoreState)
        return MemoryStores(state, runtime=runtime, dedup_ttl_s=60.0)

    def over_tables(slab_size_s: float) -> Stores:
        return TableStores(tables, runtime, slab_size_s=slab_size_s)

    def cassandra(slab_size_s: float) -> Stores:
        from prosody.stores.cassandra import CassandraSettings, CassandraStores

        settings = CassandraSettings(
            nodes=(request.getfixturevalue("cassandra_contact"),),
            keyspace=request.getfixturevalue("keyspace"),
            slab_size_s=slab_size_s,
        )
        return CassandraStores(settings, runtime)

    cluster, tables = MemoryCluster(), Tables()
    makers = {"memory": memory, "tables": over_tables, "cassandra": cassandra}
    found = Place(request.param, makers[request.param])
    yield found
    await found.close()


@pytest.fixture
async def stores(place: Place) -> Stores:
    """Stores of each kind."""
    return await place.stores()


@pytest.fixture
def segment() -> Segment:
    """A segment that no other test uses."""
    return Segment(f"group-{uuid.uuid4().hex[:8]}", "orders", next(_numbers))


@pytest.fixture(scope="package")
def own_cassandra() -> Iterator[CassandraServer]:
    """A Cassandra that tests may kill, and that asks for passwords (``cassandra``/``cassandra``)."""
    server = mortal_cassandra(
        {
            "authenticator": "PasswordAuthenticator",
            "authorizer": "CassandraAuthorizer",
            "role_manager": "CassandraRoleManager",
            # Rights that were granted a moment ago count at once.
            "permissions_validity": "100ms",
            "roles_validity": "100ms",
            "credentials_validity": "100ms",
        }
    )
    try:
        server.start()
        wait_for_login(server.address, "cassandra", "cassandra")
        yield server
    finally:
        server.close()


@pytest.fixture
def running_cassandra(own_cassandra: CassandraServer) -> CassandraServer:
    """``own_cassandra``, well again if the test before has left it killed or frozen."""
    own_cassandra.resume()
    if not own_cassandra.running:
        own_cassandra.start()
    return own_cassandra
