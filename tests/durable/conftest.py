"""Each test of ``place`` runs twice: embedded on a clock that jumps, and on real services."""

from __future__ import annotations

import asyncio
import functools
import uuid
from typing import TYPE_CHECKING

import pytest

from prosody.broker.kafka import KafkaBroker
from prosody.broker.memory import MemoryBroker, MemoryCluster
from prosody.runtime import SystemRuntime
from tests.broker.levers import KafkaLevers, MemoryLevers
from tests.client.support import unique
from tests.durable.support import Place
from tests.durable.telling import Told
from tests.observe.tracers import spans  # noqa: F401  # a fixture
from tests.outages.conftest import log  # noqa: F401  # a fixture
from tests.processes.conftest import report  # noqa: F401  # a fixture
from tests.stores.support import drop_keyspace
from tests.support import FakeRuntime, VirtualLoop
from tools.look import KafkaLook, MemoryLook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.broker.levers import Levers

SERVICES = "services"
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "memory": VirtualLoop,
    SERVICES: asyncio.new_event_loop,
}


def pytest_asyncio_loop_factories(
    item: pytest.Function,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Which loops a test runs on, and so in which places."""
    if "place" in item.fixturenames:
        return LOOPS
    return {SERVICES: LOOPS[SERVICES]}


def pytest_itemcollected(item: pytest.Item) -> None:
    """What runs on services is marked so, before anybody selects by marks."""
    spec = getattr(item, "callspec", None)
    if spec is not None and LOOPS[SERVICES] in spec.params.values():
        item.add_marker(pytest.mark.real)


@pytest.fixture(scope="session")
def durable_keyspace(cassandra_contact: str) -> Iterator[str]:
    """A keyspace of this run on the session's Cassandra; groups and topics tell the tests apart."""
    name = f"durable_{uuid.uuid4().hex[:12]}"
    yield name
    drop_keyspace(cassandra_contact, name)


def on_services(kafka: str, cassandra: str, keyspace: str) -> Place:
    """A place on a real Kafka and a real Cassandra."""
    return Place(
        KafkaBroker((kafka,), runtime=SystemRuntime()),
        functools.partial(KafkaLook, kafka),
        mock=False,
        options={"cassandra_nodes": cassandra, "cassandra_keyspace": keyspace},
    )


def in_memory() -> Place:
    """A place in an embedded cluster, on virtual time."""
    runtime, cluster = FakeRuntime(), MemoryCluster()
    return Place(
        MemoryBroker(cluster, runtime=runtime, auto_create_topics=False),
        functools.partial(MemoryLook, cluster),
        mock=True,
        runtime=runtime,
    )


def of_session(request: pytest.FixtureRequest) -> Place:
    """A place on the session's Kafka and Cassandra."""
    return on_services(
        request.getfixturevalue("kafka_bootstrap"),
        request.getfixturevalue("cassandra_contact"),
        request.getfixturevalue("durable_keyspace"),
    )


@pytest.fixture
async def services(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """A place on real services, for what is tested there only."""
    found = of_session(request)
    yield found
    await found.close()


@pytest.fixture
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """Where clients live: which one follows from the loop that the test runs on."""
    virtual = isinstance(asyncio.get_running_loop(), VirtualLoop)
    found = in_memory() if virtual else of_session(request)
    yield found
    await found.close()


@pytest.fixture
def levers(request: pytest.FixtureRequest, place: Place) -> Levers:
    """What can be done to the cluster of ``place`` behind its clients' backs."""
    if place.mock:
        return MemoryLevers(place.cluster)
    return KafkaLevers(request.getfixturevalue("kafka_bootstrap"))


@pytest.fixture
async def told(place: Place) -> AsyncIterator[Told]:
    await place.create_topic(partitions=1)
    found = Told(place, await place.create_topic(unique("telemetry"), partitions=1))
    yield found
    await found.events.stop()
