"""A real Kafka cluster, over aiokafka."""

from __future__ import annotations

from prosody.broker.kafka.broker import KafkaBroker
from prosody.broker.kafka.security import KafkaSecurity

__all__ = ["KafkaBroker", "KafkaSecurity"]
