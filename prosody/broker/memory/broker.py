"""The embedded broker behind the seam."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.broker.memory.admin import MemoryAdmin
from prosody.broker.memory.batches import MemoryBatches
from prosody.broker.memory.consumer import MemoryConsumer
from prosody.broker.memory.producer import MemoryProducer
from prosody.broker.memory.reader import MemoryReader

if TYPE_CHECKING:
    from prosody.broker.memory.cluster import MemoryCluster
    from prosody.broker.protocol import ConsumerSettings, ProducerSettings, ReaderSettings
    from prosody.runtime import Runtime


class MemoryBroker:
    """Implements ``Broker`` over a :class:`MemoryCluster`.

    :param cluster: where topics and groups live; several brokers may share it.
    :param auto_create_topics: whether sends and subscriptions create topics, as mock mode wants it. If
        not, ``start`` of a consumer raises ``TopicsNotFoundError`` and ``send`` a ``BrokerError``.
    """

    def __init__(
        self, cluster: MemoryCluster, *, runtime: Runtime, auto_create_topics: bool
    ) -> None:
        self.cluster = cluster
        self._runtime = runtime
        self._auto_create_topics = auto_create_topics

    def consumer(self, settings: ConsumerSettings) -> MemoryConsumer:
        return MemoryConsumer(
            self.cluster,
            settings,
            runtime=self._runtime,
            auto_create_topics=self._auto_create_topics,
        )

    def producer(self, settings: ProducerSettings) -> MemoryProducer:
        return MemoryProducer(
            self.cluster,
            settings,
            runtime=self._runtime,
            auto_create_topics=self._auto_create_topics,
        )

    def batches(self, settings: ProducerSettings) -> MemoryBatches:
        return MemoryBatches(
            self.cluster,
            settings,
            runtime=self._runtime,
            auto_create_topics=self._auto_create_topics,
        )

    def reader(self, settings: ReaderSettings) -> MemoryReader:
        return MemoryReader(self.cluster, settings)

    def admin(self) -> MemoryAdmin:
        return MemoryAdmin(self.cluster)
