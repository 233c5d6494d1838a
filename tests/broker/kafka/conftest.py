"""A broker on the real Kafka, for what only aiokafka's adapter has to prove."""

from __future__ import annotations

import pytest

from prosody.broker.kafka import KafkaBroker
from prosody.runtime import SystemRuntime


@pytest.fixture
def kafka(kafka_bootstrap: str) -> KafkaBroker:
    return KafkaBroker((kafka_bootstrap,), runtime=SystemRuntime())
