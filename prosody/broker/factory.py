"""Which broker a configuration asks for: a real Kafka, or the embedded one of mock mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.broker.kafka import KafkaBroker, KafkaSecurity
from prosody.broker.memory import MemoryBroker, MemoryCluster

if TYPE_CHECKING:
    from prosody.broker.protocol import Broker
    from prosody.config import Config
    from prosody.runtime import Runtime


def make_broker(config: Config, runtime: Runtime) -> Broker:
    """The broker of ``config``; no I/O. All mock clients of a process share one cluster."""
    if config.core.mock:
        return MemoryBroker(MemoryCluster.shared(), runtime=runtime, auto_create_topics=True)
    extra = config.extra
    return KafkaBroker(
        config.core.bootstrap_servers,
        runtime=runtime,
        security=KafkaSecurity(
            protocol=extra.kafka_security_protocol,
            sasl_mechanism=extra.kafka_sasl_mechanism,
            sasl_username=extra.kafka_sasl_username,
            sasl_password=extra.kafka_sasl_password,
            ssl_cafile=extra.kafka_ssl_cafile,
            ssl_certfile=extra.kafka_ssl_certfile,
            ssl_keyfile=extra.kafka_ssl_keyfile,
            ssl_keypassword=extra.kafka_ssl_keypassword,
            ssl_check_hostname=extra.kafka_ssl_check_hostname,
        ),
    )
