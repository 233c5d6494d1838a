"""The brokers that are measured: the embedded one, and a real Kafka."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
from typing import TYPE_CHECKING, Any

from prosody.broker.protocol import ConsumerSettings, ProducerSettings
from prosody.config.options import DEFAULT_TELEMETRY_TOPIC
from prosody.runtime import SystemRuntime
from tools.look import KafkaLook, MemoryLook, uncommitted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prosody.broker.protocol import Broker
    from tools.look import Look

PARTITIONS = 4
_numbers = itertools.count(1)


class Place:
    """A broker with a filled topic."""

    def __init__(self, name: str, broker: Broker, look: Callable[[str, str], Look]) -> None:
        self.name = name
        self.broker = broker
        self._look = look
        self.topic = ""
        self.headers: tuple[tuple[str, bytes | None], ...] = (("source-system", b"bench"),)
        """Of each record."""

    async def fill(self, records: list[tuple[bytes, bytes]], *, one_by_one: bool = False) -> None:
        """Make a new topic of four partitions that holds ``records``.

        :param one_by_one: each in a batch of its own, as messages come that are sent at their times. The
            broker begins the index of a new log at its second 4 KiB, and that write stopped everything for
            10 to 140 ms here: let it be over before a latency is measured.
        """
        self.topic = f"bench-{os.getpid()}-{next(_numbers)}"
        admin = self.broker.admin()
        await admin.create_topic(self.topic, partitions=PARTITIONS)
        if DEFAULT_TELEMETRY_TOPIC not in await admin.topics():
            await admin.create_topic(DEFAULT_TELEMETRY_TOPIC, partitions=PARTITIONS)
        await admin.stop()
        await self.append(records, one_by_one=one_by_one)

    async def append(self, records: list[tuple[bytes, bytes]], *, one_by_one: bool = False) -> None:
        compression, at_once = (None, 1) if one_by_one else ("lz4", 5000)
        producer = self.broker.producer(ProducerSettings("bench", compression, "crc32"))
        await producer.start()
        for chunk in _chunks(records, at_once):
            await asyncio.gather(
                *(
                    producer.send(
                        self.topic, key=key, value=value, headers=self.headers, timeout_s=60.0
                    )
                    for key, value in chunk
                )
            )
        await producer.stop()

    async def uncommitted(self, group: str) -> int:
        """Records of the topic that ``group`` has not committed."""
        look = self._look(self.topic, group)
        await look.start()
        try:
            return uncommitted(await look.offsets())
        finally:
            await look.stop()

    def consumer(self, group: str) -> Any:
        return self.broker.consumer(
            ConsumerSettings(group, "bench", 30.0, 30.0, 64 * 2**20, "roundrobin", 60.0)
        )


def _chunks(records: list[tuple[bytes, bytes]], size: int) -> Iterator[list[tuple[bytes, bytes]]]:
    for at in range(0, len(records), size):
        yield records[at : at + size]


def memory_place() -> Place:
    from prosody.broker.memory import MemoryBroker, MemoryCluster
    from prosody.broker.memory.batches import KEEP

    cluster = MemoryCluster()
    # Kept as short as where the library makes it itself: events of long ago are nobody's business.
    cluster.create_topic(DEFAULT_TELEMETRY_TOPIC, PARTITIONS, keep=KEEP)
    broker = MemoryBroker(cluster, runtime=SystemRuntime(), auto_create_topics=False)
    return Place("memory", broker, functools.partial(MemoryLook, cluster))


def kafka_place(bootstrap: str) -> Place:
    from prosody.broker.kafka import KafkaBroker

    broker = KafkaBroker((bootstrap,), runtime=SystemRuntime())
    return Place("kafka", broker, functools.partial(KafkaLook, bootstrap))
