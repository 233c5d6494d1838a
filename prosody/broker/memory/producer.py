"""Writes records into the embedded broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.broker.partitioners import partition_for
from prosody.broker.protocol import SentRecord
from prosody.errors import BrokerError, RecordTooLargeError
from prosody.runtime import give_way

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prosody.broker.memory.cluster import MemoryCluster
    from prosody.broker.protocol import ProducerSettings
    from prosody.runtime import Runtime

_SENDS_PER_TURN = 100
"""After so many sends the loop may run: a program that only sends must not stop everybody else.
More often would cost more than the sends themselves."""


class MemoryProducer:
    """Implements ``BrokerProducer``. A record is in the log when ``send`` has run to its end or to its
    first wait, so neither ``timeout_s`` nor compression means anything here."""

    def __init__(
        self,
        cluster: MemoryCluster,
        settings: ProducerSettings,
        *,
        runtime: Runtime,
        auto_create_topics: bool,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._partitioner = settings.partitioner
        self._wall = runtime.wall
        self._random = runtime.random
        self._auto_create_topics = auto_create_topics
        self._state = "not started"
        self._sends = 0

    async def start(self) -> None:
        if self._state != "not started":
            raise BrokerError("this producer was started before; make a new one", retriable=False)
        self._cluster.enter("start", self._settings.client_id)
        self._state = "running"

    async def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        timestamp_ms: int | None = None,
        timeout_s: float | None = None,
    ) -> SentRecord:
        self._cluster.enter("send", self._settings.client_id)
        if self._state != "running":
            raise BrokerError(f"this producer is {self._state}", retriable=False)
        cluster = self._cluster
        size = (len(key) if key else 0) + (len(value) if value else 0)
        if headers:
            headers = tuple(headers)
            for name, content in headers:
                size += len(name) + (len(content) if content else 0)
        if size > cluster.max_record_bytes:
            raise RecordTooLargeError(
                f"record of {size} bytes for topic {topic!r} is larger than the "
                f"{cluster.max_record_bytes} a record may have"
            )
        if timestamp_ms is None:
            timestamp_ms = int(self._wall() * 1000)
        with cluster.lock:
            logs = cluster.logs(topic)
            if not logs:
                if not self._auto_create_topics:
                    raise BrokerError(f"topic {topic!r} does not exist", retriable=True)
                cluster.create_topic(topic)
                logs = cluster.logs(topic)
            partition = partition_for(self._partitioner, key, len(logs), self._random)
            offset = logs[partition].append(timestamp_ms, key, value, headers)
        self._sends += 1
        if self._sends % _SENDS_PER_TURN == 0:
            # After the append: two sends keep the order of their calls.
            await give_way()
        return SentRecord(topic, partition, offset)

    async def stop(self) -> None:
        self._state = "stopped"
