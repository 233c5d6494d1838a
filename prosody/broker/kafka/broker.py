"""A Kafka cluster behind the broker seam."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.broker.kafka.admin import KafkaAdmin
from prosody.broker.kafka.batches import KafkaBatches
from prosody.broker.kafka.consumer import KafkaConsumer
from prosody.broker.kafka.logs import calm_logs
from prosody.broker.kafka.producer import KafkaProducer
from prosody.broker.kafka.reader import KafkaReader
from prosody.broker.kafka.security import KafkaSecurity

if TYPE_CHECKING:
    from prosody.broker.protocol import ConsumerSettings, ProducerSettings, ReaderSettings
    from prosody.runtime import Runtime


class KafkaBroker:
    """Implements :class:`~prosody.broker.protocol.Broker` over aiokafka.

    ``bootstrap_servers`` are ``host:port``; one that answers is enough. Does no I/O: the clients it
    makes connect when they are started.
    """

    def __init__(
        self,
        bootstrap_servers: tuple[str, ...],
        *,
        runtime: Runtime,
        security: KafkaSecurity | None = None,
    ) -> None:
        self._servers = bootstrap_servers
        self._runtime = runtime
        self._security = security or KafkaSecurity()
        calm_logs(runtime)

    def consumer(self, settings: ConsumerSettings) -> KafkaConsumer:
        return KafkaConsumer(
            self._servers, settings, runtime=self._runtime, security=self._security
        )

    def producer(self, settings: ProducerSettings) -> KafkaProducer:
        return KafkaProducer(
            self._servers, settings, runtime=self._runtime, security=self._security
        )

    def batches(self, settings: ProducerSettings) -> KafkaBatches:
        return KafkaBatches(self._servers, settings, runtime=self._runtime, security=self._security)

    def reader(self, settings: ReaderSettings) -> KafkaReader:
        return KafkaReader(self._servers, settings, runtime=self._runtime, security=self._security)

    def admin(self) -> KafkaAdmin:
        return KafkaAdmin(self._servers, runtime=self._runtime, security=self._security)
