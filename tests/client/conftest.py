"""The behaviour tests run over the embedded broker and over a real Kafka."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest

from prosody.broker.kafka import KafkaBroker
from prosody.broker.memory import MemoryBroker, MemoryCluster
from prosody.runtime import SystemRuntime
from tests.client.support import Place
from tools.look import KafkaLook, MemoryLook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.real)])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    runtime = SystemRuntime()
    if request.param == "memory":
        cluster = MemoryCluster()
        broker = MemoryBroker(cluster, runtime=runtime, auto_create_topics=False)
        found = Place(broker, functools.partial(MemoryLook, cluster), mock=True)
    else:
        bootstrap = request.getfixturevalue("kafka_bootstrap")
        found = Place(
            KafkaBroker((bootstrap,), runtime=runtime),
            functools.partial(KafkaLook, bootstrap),
            mock=False,
        )
    yield found
    await found.close()
