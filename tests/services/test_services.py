"""The real Kafka and the real Cassandra: they answer, keep their data over a crash, and always end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import RoundRobinPolicy

from tools.services import CassandraServer, KafkaServer
from tools.services.external import ExternalServer
from tools.services.guard import command_line

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        sys.platform == "win32", reason="servers are started on Linux and macOS only"
    ),
]

TIMEOUT_S = 60.0


Own = TypeVar("Own", KafkaServer, CassandraServer)


def controllable(server: Own | ExternalServer) -> Own:
    if isinstance(server, ExternalServer):
        pytest.skip(f"{server.variable} points at a server that must not be killed")
    return server


async def topics_after(bootstrap: str, create: str | None = None) -> list[str]:
    async with asyncio.timeout(TIMEOUT_S):
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        try:
            found: list[str] = []
            if create is not None:
                await admin.create_topics([NewTopic(create, 3, 1)])
                while create not in found:  # the broker lists it a moment after it has made it
                    found = await admin.list_topics()
            else:
                found = await admin.list_topics()
            return found
        finally:
            await admin.close()


async def test_kafka_answers_keeps_topics_over_a_crash_and_freezes(
    kafka_server: KafkaServer | ExternalServer, kafka_bootstrap: str
) -> None:
    topic = f"kept-{time.time_ns()}"
    assert topic in await topics_after(kafka_bootstrap, create=topic)
    server = controllable(kafka_server)
    before = server.pid
    server.kill()
    assert not server.answers()
    server.start()
    assert server.pid != before
    assert server.address == kafka_bootstrap
    assert topic in await topics_after(kafka_bootstrap)
    server.pause()
    assert not server.answers()
    server.resume()
    assert topic in await topics_after(kafka_bootstrap)


async def test_a_topic_with_a_wrong_name_does_not_appear(kafka_bootstrap: str) -> None:
    topic = f"never-made-{time.time_ns()}"
    async with asyncio.timeout(TIMEOUT_S):
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
        await admin.start()
        try:
            # Asking for a topic is what would create it.
            [described] = await admin.describe_topics([topic])
            assert described["error_code"] == 3  # unknown topic or partition
            assert topic not in await admin.list_topics()
        finally:
            await admin.close()


def query(contact: str, *statements: str) -> list[tuple[Any, ...]]:
    host, _, port = contact.rpartition(":")
    profile = ExecutionProfile(load_balancing_policy=RoundRobinPolicy(), request_timeout=TIMEOUT_S)
    cluster = Cluster(
        [host],
        port=int(port),
        protocol_version=5,
        connect_timeout=TIMEOUT_S,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
    )
    try:
        session = cluster.connect()
        rows: list[tuple[Any, ...]] = []
        for statement in statements:
            rows = [tuple(row) for row in session.execute(statement)]
        return rows
    finally:
        cluster.shutdown()


def test_cassandra_answers_and_keeps_rows_over_a_crash(
    cassandra_server: CassandraServer | ExternalServer, cassandra_contact: str
) -> None:
    keyspace = f"kept_{time.time_ns()}"
    replication = "{'class': 'SimpleStrategy', 'replication_factor': 1}"
    query(
        cassandra_contact,
        f"CREATE KEYSPACE {keyspace} WITH replication = {replication}",
        f"CREATE TABLE {keyspace}.t (k int PRIMARY KEY, v text)",
        f"INSERT INTO {keyspace}.t (k, v) VALUES (1, 'kept')",
    )
    read = f"SELECT k, v FROM {keyspace}.t"
    assert query(cassandra_contact, read) == [(1, "kept")]
    server = controllable(cassandra_server)
    server.restart()
    assert query(cassandra_contact, read) == [(1, "kept")]


def processes_naming(text: str) -> set[int]:
    """The processes that have ``text`` among their arguments: servers and guards in that folder."""
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid="], capture_output=True, text=True, timeout=30, check=True
    )
    return {int(pid) for pid in listing.stdout.split() if text in command_line(int(pid))}


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 3)]
)
def test_run_ends_its_server_when_it_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("PROSODY_TEST_KAFKA", raising=False)
    # On Ctrl-C it tidies up and chooses an exit code of its own, as pytest does.
    command = (
        "import os, sys, time\n"
        "print(os.environ['PROSODY_TEST_KAFKA'], flush=True)\n"
        "try: time.sleep(300)\n"
        "except KeyboardInterrupt: sys.exit(3)\n"
    )
    runner = subprocess.Popen(
        [
            *(sys.executable, "-m", "tools.services", "run", "kafka", "--"),
            *(sys.executable, "-c", command),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    with runner:
        try:
            assert runner.stdout is not None
            address = runner.stdout.readline().strip()
            assert address.startswith("localhost:")
            assert len(processes_naming(str(tmp_path))) == 2  # the server and its guard
            # Ctrl-C at a terminal reaches the whole group, SIGTERM usually one process.
            if number == signal.SIGINT:
                os.killpg(runner.pid, number)
            else:
                runner.send_signal(number)
            assert runner.wait(TIMEOUT_S) == code
            assert processes_naming(str(tmp_path)) == set()
            assert list(tmp_path.iterdir()) == []
        finally:
            runner.kill()
