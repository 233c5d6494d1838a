"""The behaviour tests run over the embedded broker and over a real Kafka."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest

from prosody.broker.kafka import KafkaBroker
from prosody.broker.memory import MemoryBroker, MemoryCluster
from prosody.runtime import SystemRuntime
from tests.client.support import Place
from tests.observe.tracers import spans  # noqa: F401  # a fixture
from tools.look import KafkaLook, MemoryLook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def on_kafka(bootstrap: str) -> Place:
    """A place on a real Kafka."""
    return Place(
        KafkaBroker((bootstrap,), runtime=SystemRuntime()),
        functools.partial(KafkaLook, bootstrap),
        mock=False,
    )


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.real)])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    if request.param == "memory":
        cluster = MemoryCluster()
        broker = MemoryBroker(cluster, runtime=SystemRuntime(), auto_create_topics=False)
        found = Place(broker, functools.partial(MemoryLook, cluster), mock=True)
    else:
        found = on_kafka(request.getfixturevalue("kafka_bootstrap"))
    yield found
    await found.close()


@pytest.fixture
async def kafka_place(kafka_bootstrap: str) -> AsyncIterator[Place]:
    found = on_kafka(kafka_bootstrap)
    yield found
    await found.close()
