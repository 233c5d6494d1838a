"""A pytest plugin: the real Kafka and Cassandra of a test session.

Each is started when the first test asks for it, on free ports, and ended with the session.
PROSODY_TEST_KAFKA and PROSODY_TEST_CASSANDRA (``host:port``) point the tests at servers that run
already. A server that cannot be had fails the tests that need it; it never skips them. After a failed
test the logs are kept, and the end of the run says where.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.servers import small_cassandra, small_kafka
from tools.services import CassandraServer, KafkaServer, ServiceError, free_port
from tools.services.cassandra import cassandra_answers
from tools.services.external import ExternalServer
from tools.services.jars import ensure_jars
from tools.services.kafka import kafka_answers

__all__ = ["free_port"]

_FIXTURES = {"cassandra": "cassandra_server", "kafka": "kafka_server"}
_KINDS: dict[str, type[KafkaServer | CassandraServer]] = {
    "cassandra": CassandraServer,
    "kafka": KafkaServer,
}


class RealServices:
    """The servers of one test session."""

    def __init__(self) -> None:
        self.servers: dict[str, KafkaServer | CassandraServer] = {}
        self.problems: dict[str, ServiceError] = {}
        self.wanted: set[str] = set()
        self.failed: set[str] = set()
        self.logs: list[Path] = []

    def plan(self, items: list[pytest.Item]) -> None:
        """Note which servers ``items`` name, and fetch jars now: no test's deadline counts that."""
        for name, kind in _KINDS.items():
            if any(_FIXTURES[name] in _fixture_names(item) for item in items):
                self.wanted.add(name)
            used = any(_may_use(item, name) for item in items)
            if used and not os.environ.get(kind.variable):
                try:
                    ensure_jars(name, kind.title, kind.variable)
                except ServiceError as error:
                    # Told by the tests that need this server; the others can run.
                    self.problems[name] = error

    def get(self, name: str) -> KafkaServer | CassandraServer | ExternalServer:
        """The running server; fails the test when it cannot be had."""
        try:
            kind = _KINDS[name]
            if address := os.environ.get(kind.variable):
                return _external(kind, address)
            # Whatever else this run will need comes up at the same time.
            for other in sorted({name} | self.wanted):
                self._launch(other)
            if name in self.problems:
                raise self.problems[name]
            self.servers[name].wait_until_ready()
            return self.servers[name]
        except ServiceError as error:
            pytest.fail(str(error), pytrace=False)

    def _launch(self, name: str) -> None:
        kind = _KINDS[name]
        if name in self.servers or name in self.problems or os.environ.get(kind.variable):
            return
        server = small_cassandra() if name == "cassandra" else small_kafka()
        try:
            server.launch()
        except ServiceError as error:
            # Told by the tests that need this server; the others can run.
            self.problems[name] = error
        else:
            self.servers[name] = server

    def mend(self, item: pytest.Item) -> None:
        """Bring back what an earlier test has ended or frozen; fail when a server crashed."""
        for name, server in self.servers.items():
            if not _may_use(item, name) or server.started_in_s is None:
                continue
            if server.crashed:
                pytest.fail(f"{server.title} ended by itself:\n{server.log_tail()}", pytrace=False)
            if server.paused:
                server.resume()
            if not server.running and server.folder is not None:
                server.start()

    def close(self) -> None:
        """End everything."""
        for name, server in self.servers.items():
            if log := server.close(keep_log=name in self.failed):
                self.logs.append(log)
        self.servers.clear()


_KEY = pytest.StashKey[RealServices]()


def _fixture_names(item: pytest.Item) -> list[str]:
    names: list[str] = getattr(item, "fixturenames", [])
    return names


def _may_use(item: pytest.Item, name: str) -> bool:
    # A test marked real may also ask for its fixture while it runs.
    return _FIXTURES[name] in _fixture_names(item) or item.get_closest_marker("real") is not None


def _external(kind: type[KafkaServer | CassandraServer], address: str) -> ExternalServer:
    server = ExternalServer(kind.title, kind.variable, address)
    answers = kafka_answers if kind is KafkaServer else cassandra_answers
    if not answers(server.host, server.port):
        raise ServiceError(
            f"{kind.title} does not answer on {server.address}, where {kind.variable} points; "
            f"start it, or unset {kind.variable} and the tests start their own"
        )
    return server


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_KEY] = RealServices()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    if not session.config.getoption("collectonly"):
        session.config.stash[_KEY].plan(session.items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.config.stash[_KEY].mend(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.config.stash[_KEY].failed |= {name for name in _KINDS if _may_use(item, name)}
    return report


# Last: fixtures that hold clients of the servers are torn down in this hook too, before.
@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.stash[_KEY].close()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for log in config.stash[_KEY].logs:
        terminalreporter.write_line(f"server log kept in {log}")


@pytest.fixture(scope="session")
def kafka_server(pytestconfig: pytest.Config) -> KafkaServer | ExternalServer:
    """The session's Kafka; ``controllable`` says whether a test may kill or pause it."""
    server = pytestconfig.stash[_KEY].get("kafka")
    assert not isinstance(server, CassandraServer)
    return server


@pytest.fixture(scope="session")
def kafka_bootstrap(kafka_server: KafkaServer | ExternalServer) -> str:
    """``host:port`` of the session's Kafka."""
    return kafka_server.address


@pytest.fixture(scope="session")
def cassandra_server(pytestconfig: pytest.Config) -> CassandraServer | ExternalServer:
    """The session's Cassandra; ``controllable`` says whether a test may kill or pause it."""
    server = pytestconfig.stash[_KEY].get("cassandra")
    assert not isinstance(server, KafkaServer)
    return server


@pytest.fixture(scope="session")
def cassandra_contact(cassandra_server: CassandraServer | ExternalServer) -> str:
    """``host:port`` of the session's Cassandra."""
    return cassandra_server.address
