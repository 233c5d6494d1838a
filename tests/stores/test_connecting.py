"""Starting: the schema, ten processes at once, wrong options, missing rights, giving up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from prosody.errors import StoreError
from prosody.runtime import SystemRuntime
from prosody.stores.cassandra import CassandraSettings, CassandraStores
from prosody.stores.cassandra.tables import TABLES
from tests.stores.support import drop_keyspace, plain_session
from tools.services import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tools.services import CassandraServer

ROOT = Path(__file__).parents[2]
PROCESSES = 10


def stores_at(address: str, **options: Any) -> CassandraStores:
    return CassandraStores(CassandraSettings(**({"nodes": (address,)} | options)), SystemRuntime())


async def start_fails(address: str, **options: Any) -> StoreError:
    """Start, expect it to fail, and to leave nothing behind; starting again is possible."""
    stores = stores_at(address, **options)
    with pytest.raises(StoreError) as caught:
        await stores.start()
    await stores.stop()
    return caught.value


@pytest.fixture
def fresh(cassandra_contact: str) -> Iterator[str]:
    """A keyspace that is not there yet."""
    name = f"Fresh_{uuid.uuid4().hex[:8]}"
    yield name
    drop_keyspace(cassandra_contact, name)


@pytest.mark.real
def test_ten_processes_start_at_once(cassandra_contact: str, fresh: str) -> None:
    starters = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.stores.starter", cassandra_contact, fresh],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=ROOT,
        )
        for _ in range(PROCESSES)
    ]  # fmt: skip
    try:
        for starter in starters:
            assert starter.stdout is not None
            assert starter.stdout.readline() == "ready\n", starter.communicate(timeout=30)
        results = []
        for starter in starters:
            assert starter.stdin is not None
            starter.stdin.write("go\n")
            starter.stdin.flush()
        for starter in starters:
            out, err = starter.communicate(timeout=90)
            results.append((out, err[-2000:], starter.returncode))
    finally:
        for starter in starters:
            starter.kill()
            starter.communicate()
    assert [(out, code) for out, _, code in results] == [("done\n", 0)] * PROCESSES, results
    session = plain_session(cassandra_contact)
    try:
        query = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = %s"
        names = [row.table_name for row in session.execute(query, (fresh,))]
        assert sorted(names) == sorted(table.name for table in TABLES)
        version = session.execute(f'SELECT version FROM "{fresh}".aio_schema').one()
        assert version.version == 1
    finally:
        session.cluster.shutdown()


@pytest.mark.real
async def test_checking_only_names_the_cql_that_is_missing(
    cassandra_contact: str, fresh: str
) -> None:
    error = await start_fails(cassandra_contact, keyspace=fresh, schema_check_only=True)
    text = str(error)
    assert "PROSODY_CASSANDRA_SCHEMA_CHECK_ONLY" in text
    assert not error.retriable
    statements = [line.rstrip(";") for line in text.splitlines() if line.endswith(";")]
    assert len(statements) == len(TABLES) + 2

    def run_them() -> None:
        session = plain_session(cassandra_contact)
        try:
            for statement in statements:
                session.execute(statement)
        finally:
            session.cluster.shutdown()

    await asyncio.to_thread(run_them)
    stores = stores_at(cassandra_contact, keyspace=fresh, schema_check_only=True)
    await stores.start()
    await stores.stop()


@pytest.mark.real
async def test_a_table_of_another_shape_is_not_touched(cassandra_contact: str, fresh: str) -> None:
    def make() -> None:
        session = plain_session(cassandra_contact)
        try:
            session.execute(
                f'CREATE KEYSPACE "{fresh}" WITH replication = '
                "{'class': 'SimpleStrategy', 'replication_factor': 1}"
            )
            session.execute(f'CREATE TABLE "{fresh}".aio_dedup (identity text PRIMARY KEY)')
        finally:
            session.cluster.shutdown()

    await asyncio.to_thread(make)
    error = await start_fails(cassandra_contact, keyspace=fresh)
    assert "aio_dedup" in str(error)
    assert "cassandra_keyspace (PROSODY_CASSANDRA_KEYSPACE)" in str(error)


@pytest.mark.real
async def test_starting_leaves_nothing_behind(cassandra_contact: str, keyspace: str) -> None:
    """The leak guard looks at threads and sockets after the test."""
    before = threading.active_count()
    stores = stores_at(cassandra_contact, keyspace=keyspace)
    await stores.start()
    await stores.start()
    assert threading.active_count() > before
    await stores.stop()
    with pytest.raises(StoreError, match="not started"):
        await stores.dedup.seen(uuid.uuid4().bytes)
    await stores.start()
    assert not await stores.dedup.seen(uuid.uuid4().bytes)
    await stores.stop()


@pytest.mark.real
async def test_a_pool_made_while_stopping_leaves_nothing_behind(
    cassandra_contact: str, keyspace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an outage: the node has come back, and the driver makes its pool anew, just then."""
    stores = stores_at(cassandra_contact, keyspace=keyspace)
    await stores.start()
    assert stores._session is not None
    cluster, session = stores._session.cluster, stores._session.session
    (old,) = session._pools.values()
    make, may_begin, made = cluster.connection_factory, threading.Event(), []

    def late(*args: Any, **kwargs: Any) -> Any:
        assert may_begin.wait(30)
        made.append(make(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(cluster, "connection_factory", late)
    session.add_or_renew_pool(old.host, False)
    stopping = asyncio.create_task(stores.stop())
    async with asyncio.timeout(30):
        while not old.is_shutdown:  # noqa: ASYNC110  # of the driver, which tells nobody
            await asyncio.sleep(0.01)
    may_begin.set()
    await stopping
    (connection,) = made
    assert connection.is_closed


@pytest.mark.real
async def test_giving_up_while_connecting_leaves_nothing_behind(
    cassandra_contact: str, keyspace: str
) -> None:
    stores = stores_at(cassandra_contact, keyspace=keyspace)
    starting = asyncio.create_task(stores.start())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await stores.stop()
    # The thread has it all closed before the loop ends, which waits for it.
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_nobody_there() -> None:
    error = await start_fails(f"127.0.0.1:{free_port()}")
    assert "cassandra_nodes (PROSODY_CASSANDRA_NODES)" in str(error)
    assert error.retriable


async def test_a_name_that_nobody_knows() -> None:
    error = await start_fails("nowhere.invalid:9042")
    assert "cassandra_nodes (PROSODY_CASSANDRA_NODES)" in str(error)


@pytest.mark.real
async def test_another_datacenter(cassandra_contact: str) -> None:
    error = await start_fails(cassandra_contact, datacenter="moon")
    assert "cassandra_datacenter (PROSODY_CASSANDRA_DATACENTER)" in str(error)
    assert "datacenter1" in str(error)


@pytest.mark.real
async def test_tls_where_the_server_has_none(cassandra_contact: str) -> None:
    error = await start_fails(cassandra_contact, ssl_enabled=True)
    assert "cassandra_ssl_enabled" in str(error) or "cassandra_nodes" in str(error)


@pytest.mark.real
async def test_passwords_and_rights(running_cassandra: CassandraServer) -> None:
    address = running_cassandra.address
    for given in ({}, {"user": "cassandra", "password": "wrong"}, {"user": "nobody"}):
        error = await start_fails(address, **given)
        assert "cassandra_user and cassandra_password" in str(error)
        assert not error.retriable

    def run(*statements: str) -> None:
        session = plain_session(address, "cassandra", "cassandra")
        try:
            for statement in statements:
                session.execute(statement)
        finally:
            session.cluster.shutdown()

    admin = {"user": "cassandra", "password": "cassandra"}
    limited = {"user": "limited", "password": "pw", "keyspace": "limited"}
    await asyncio.to_thread(run, "CREATE ROLE limited WITH PASSWORD = 'pw' AND LOGIN = true")
    error = await start_fails(address, **limited)
    for wanted in ("cassandra_user 'limited'", "CREATE", "GRANT MODIFY ON KEYSPACE", "aio_dedup"):
        assert wanted in str(error)
    stores = stores_at(address, **(admin | {"keyspace": "limited"}))
    await stores.start()
    await stores.stop()
    error = await start_fails(address, **limited)
    assert "SELECT" in str(error)
    # These two are enough, once the tables are there.
    await asyncio.to_thread(
        run,
        "GRANT SELECT ON KEYSPACE limited TO limited",
        "GRANT MODIFY ON KEYSPACE limited TO limited",
    )
    stores = stores_at(address, **limited)
    async with asyncio.timeout(30):
        while True:
            try:
                await stores.start()
                break
            except StoreError:
                pass  # the server remembers rights for a moment
    identity = uuid.uuid4().bytes
    await stores.dedup.record(identity)
    assert await stores.dedup.seen(identity)
    await stores.stop()
