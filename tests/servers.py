"""Servers as small as tests need them, with a JVM that starts quickly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tools.services import QUICK_JVM, CassandraServer, KafkaServer

if TYPE_CHECKING:
    from collections.abc import Mapping


def small_kafka(properties: Mapping[str, Any] | None = None) -> KafkaServer:
    """A Kafka with some properties of its own, not started."""
    return KafkaServer(properties=properties, jvm_options=("-Xms256m", "-Xmx512m", *QUICK_JVM))


def small_cassandra(settings: Mapping[str, Any] | None = None) -> CassandraServer:
    """A Cassandra with some settings of its own, not started."""
    return CassandraServer(settings=settings, jvm_options=("-Xms512m", "-Xmx512m", *QUICK_JVM))


def mortal_cassandra(settings: Mapping[str, Any] | None = None) -> CassandraServer:
    """One that may be killed: what it has acknowledged survives that."""
    return small_cassandra(
        {"commitlog_sync": "batch", "commitlog_sync_period": "0ms", **(settings or {})}
    )
