"""Places to be a client at: the session's brokers, and Kafkas of a file's own that may be killed."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest

from prosody.broker.kafka import KafkaBroker
from prosody.broker.memory import MemoryBroker
from prosody.runtime import SystemRuntime
from tests.broker.levers import KafkaLevers, MemoryLevers
from tests.client.conftest import kafka_place, place  # noqa: F401  # fixtures
from tests.client.support import Place
from tests.outages.support import Log
from tests.servers import small_kafka
from tools.look import KafkaLook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.broker.levers import Levers
    from tools.services import KafkaServer


@pytest.fixture(scope="module")
def own_kafka(request: pytest.FixtureRequest) -> Iterator[KafkaServer]:
    """A Kafka that the tests of one file may kill; with the file's ``KAFKA_PROPERTIES``, if it has any."""
    server = small_kafka(getattr(request.module, "KAFKA_PROPERTIES", {}))
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def running_kafka(own_kafka: KafkaServer) -> KafkaServer:
    """``own_kafka``, well again if the test before has left it killed or frozen."""
    own_kafka.resume()
    if not own_kafka.running:
        own_kafka.start()
    return own_kafka


@pytest.fixture
async def own_place(running_kafka: KafkaServer) -> AsyncIterator[Place]:
    """A place on ``own_kafka``."""
    found = Place(
        KafkaBroker((running_kafka.address,), runtime=SystemRuntime()),
        functools.partial(KafkaLook, running_kafka.address),
        mock=False,
    )
    yield found
    await found.close()


@pytest.fixture
def levers(request: pytest.FixtureRequest, place: Place) -> Levers:  # noqa: F811
    """What can be done to the cluster of ``place`` behind its clients' backs."""
    if isinstance(place.broker, MemoryBroker):
        return MemoryLevers(place.cluster)
    return KafkaLevers(request.getfixturevalue("kafka_bootstrap"))


@pytest.fixture
def log() -> Iterator[Log]:
    """Everything that is logged, from here to the end of the test."""
    with Log() as found:
        yield found
