"""An independent look at the broker: what it has of the topic, and what the group has committed.

Deliberately not through the client that is looked at: that one could only repeat what it believes. And
not as a member of its group: that would disturb it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from prosody.broker.protocol import OffsetAndMetadata
from prosody.broker.protocol import TopicPartition as SeamPartition

if TYPE_CHECKING:
    from prosody.broker.memory import MemoryCluster

_LOOK_LIMIT_S = 20.0


class Offsets(NamedTuple):
    """Of one partition."""

    committed: int
    """The next offset the group would read; 0 when it has committed nothing."""
    end: int
    """The next offset the broker would write: its number of records, as the topic began empty."""


class Look(Protocol):
    """Reads a topic's offsets."""

    async def start(self) -> None:
        """Connect.

        :raises LookError: the broker cannot be reached.
        """
        ...

    async def offsets(self) -> dict[int, Offsets]:
        """By partition.

        :raises LookError: the broker does not answer.
        """
        ...

    async def stop(self) -> None:
        """Disconnect; does nothing the second time."""
        ...


def uncommitted(offsets: dict[int, Offsets]) -> int:
    """Records of the topic that the group has not committed."""
    return sum(found.end - found.committed for found in offsets.values())


class LookError(Exception):
    """The broker could not be asked."""


class MemoryLook:
    """Reads the state of an embedded cluster."""

    def __init__(self, cluster: MemoryCluster, topic: str, group_id: str) -> None:
        self._cluster = cluster
        self._topic = topic
        self._group_id = group_id

    async def start(self) -> None:
        """Nothing to connect to."""

    async def offsets(self) -> dict[int, Offsets]:
        cluster = self._cluster
        with cluster.lock:
            committed = cluster.group(self._group_id).committed
            found = {}
            for number, log in enumerate(cluster.logs(self._topic)):
                kept = committed.get(SeamPartition(self._topic, number))
                found[number] = Offsets(0 if kept is None else kept.offset, log.end)
            return found

    async def stop(self) -> None:
        """Nothing to close."""


class KafkaLook:
    """Asks the broker with aiokafka itself."""

    def __init__(self, bootstrap_servers: str, topic: str, group_id: str) -> None:
        servers = bootstrap_servers.split(",")
        self._group_id = group_id
        self._topic = topic
        self._partitions: list[TopicPartition] = []
        self._servers = servers
        self._admin: Any = None
        self._consumer: Any = None

    async def start(self) -> None:
        self._admin = AIOKafkaAdminClient(bootstrap_servers=self._servers)
        # Without a group: it only asks for the ends of partitions.
        self._consumer = AIOKafkaConsumer(bootstrap_servers=self._servers)
        try:
            async with asyncio.timeout(_LOOK_LIMIT_S):
                await self._admin.start()
                await self._consumer.start()
                (description,) = await self._admin.describe_topics([self._topic])
                numbers = [p["partition"] for p in description["partitions"]]
                self._partitions = [TopicPartition(self._topic, n) for n in sorted(numbers)]
        except (KafkaError, TimeoutError, OSError) as error:
            raise LookError(f"cannot connect to {','.join(self._servers)}: {error!r}") from error

    async def offsets(self) -> dict[int, Offsets]:
        try:
            async with asyncio.timeout(_LOOK_LIMIT_S):
                committed = await self._admin.list_consumer_group_offsets(
                    self._group_id, partitions=self._partitions
                )
                ends = await self._consumer.end_offsets(self._partitions)
        except (KafkaError, TimeoutError, OSError) as error:
            raise LookError(f"the broker does not say its offsets: {error!r}") from error
        found = {}
        for partition in self._partitions:
            kept = committed.get(partition)
            # Kafka says -1 where nothing is committed.
            offset = 0 if kept is None else max(kept.offset, 0)
            found[partition.partition] = Offsets(offset, ends[partition])
        return found

    async def committed(self) -> dict[int, OffsetAndMetadata]:
        """By partition: what the group has committed, with the note; 0 and none for nothing.

        :raises LookError: the broker does not answer.
        """
        try:
            async with asyncio.timeout(_LOOK_LIMIT_S):
                found = await self._admin.list_consumer_group_offsets(
                    self._group_id, partitions=self._partitions
                )
        except (KafkaError, TimeoutError, OSError) as error:
            raise LookError(f"the broker does not say what is committed: {error!r}") from error
        return {
            tp.partition: OffsetAndMetadata(max(kept.offset, 0), kept.metadata)
            for tp, kept in found.items()
        }

    async def stop(self) -> None:
        consumer, self._consumer = self._consumer, None
        admin, self._admin = self._admin, None
        if consumer is not None:
            await consumer.stop()
        if admin is not None:
            await admin.close()
