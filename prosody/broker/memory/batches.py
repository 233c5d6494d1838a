"""Writes many records at a time into the embedded broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody._core import keep_records
from prosody.broker.partitioners import Partitions
from prosody.broker.values import Written
from prosody.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prosody.broker.memory.cluster import MemoryCluster
    from prosody.broker.protocol import ProducerSettings
    from prosody.runtime import Runtime

KEEP = 10_000
"""A topic that is made here keeps so many records of each partition. The embedded broker has no retention,
and what comes here is written for every message, whether anybody reads it or not."""


class MemoryBatches:
    """Implements ``BrokerBatches``. What is added is in the log at once."""

    def __init__(
        self,
        cluster: MemoryCluster,
        settings: ProducerSettings,
        *,
        runtime: Runtime,
        auto_create_topics: bool,
    ) -> None:
        self._cluster = cluster
        self._client_id = settings.client_id
        self._wall = runtime.wall
        self._auto_create_topics = auto_create_topics
        self._partitions = Partitions(settings.partitioner, runtime.random)
        self._topic = ""
        self._lost = 0

    async def start(self) -> None:
        self._cluster.enter("start", self._client_id)

    async def find(self, topic: str, timeout_s: float) -> None:
        cluster = self._cluster
        cluster.enter("send", self._client_id)
        with cluster.lock:
            if not cluster.logs(topic):
                if not self._auto_create_topics:
                    raise BrokerError(f"topic {topic!r} does not exist", retriable=True)
                cluster.create_topic(topic, keep=KEEP)
            self._topic = topic

    def add(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        timestamp_ms = int(self._wall() * 1000)
        with self._cluster.lock:
            logs = self._cluster.logs(self._topic)
            if not logs:
                self._lost += len(keys)
                return
            partitions = self._partitions.of(keys, len(logs))
            keep_records([log.taking_many for log in logs], partitions, keys, values, timestamp_ms)
            for log in logs:
                log.appended_many()

    async def write(self, timeout_s: float) -> Written:
        lost, self._lost = self._lost, 0
        if not lost:
            return Written(0, None)
        text = f"topic {self._topic!r} does not exist any more"
        return Written(lost, BrokerError(text, retriable=True))

    async def stop(self) -> None:
        self._topic = ""
