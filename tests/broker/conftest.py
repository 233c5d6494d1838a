"""The contract tests run over both brokers; the real one only where a Kafka can be started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from prosody.broker.memory import MemoryBroker, MemoryCluster
from prosody.runtime import SystemRuntime
from tests.broker.levers import KafkaLevers, MemoryLevers

if TYPE_CHECKING:
    from prosody.broker.protocol import Broker
    from tests.broker.levers import Levers


@pytest.fixture
def cluster() -> MemoryCluster:
    """An embedded cluster of the test's own."""
    return MemoryCluster()


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.real)])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each broker behind the seam; missing topics are errors in both."""
    if request.param == "memory":
        cluster: MemoryCluster = request.getfixturevalue("cluster")
        return MemoryBroker(cluster, runtime=SystemRuntime(), auto_create_topics=False)
    # Imported here: the memory tests must run where no Kafka client is installed.
    from prosody.broker.kafka import KafkaBroker

    bootstrap: str = request.getfixturevalue("kafka_bootstrap")
    return KafkaBroker(bootstrap_servers=(bootstrap,), runtime=SystemRuntime())


@pytest.fixture
def levers(request: pytest.FixtureRequest, broker: Broker) -> Levers:
    """What can be done to the cluster of ``broker``."""
    if isinstance(broker, MemoryBroker):
        return MemoryLevers(broker.cluster)
    bootstrap: str = request.getfixturevalue("kafka_bootstrap")
    return KafkaLevers(bootstrap)


@pytest.fixture
def memory(cluster: MemoryCluster) -> MemoryBroker:
    """The embedded broker in mock mode: sends and subscriptions create topics."""
    return MemoryBroker(cluster, runtime=SystemRuntime(), auto_create_topics=True)
