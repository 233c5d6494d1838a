"""What a test does to a cluster behind its members' backs: retention, new partitions, a throw-out."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from prosody.broker.memory import MemoryCluster
    from prosody.broker.protocol import BrokerConsumer


COMPACTED = {
    "cleanup.policy": "compact",
    "segment.ms": "1",  # only full segments are compacted
    "min.cleanable.dirty.ratio": "0.01",
    "max.compaction.lag.ms": "1",
    "min.compaction.lag.ms": "0",
}
"""The configuration of a topic that is compacted at once."""


class Levers(Protocol):
    """One for each broker."""

    async def truncate(self, topic: str, partition: int, before_offset: int) -> None:
        """Let retention drop the records before an offset."""
        ...

    async def compact(self, topic: str, partition: int) -> None:
        """Let compaction drop the records whose key has a later one; the topic was made ``COMPACTED``
        and its last record has a key of its own."""
        ...

    async def abort(self, topic: str, count: int) -> None:
        """Write records of a transaction that is aborted: with its marker, ``count + 1`` offsets."""
        ...

    async def add_partitions(self, topic: str, count: int) -> None:
        """Raise the number of partitions to ``count``."""
        ...

    async def expel(self, group_id: str, client_id: str, consumer: BrokerConsumer) -> None:
        """Throw a member out of its group."""
        ...


class MemoryLevers:
    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster

    async def truncate(self, topic: str, partition: int, before_offset: int) -> None:
        self._cluster.truncate(topic, partition, before_offset)

    async def compact(self, topic: str, partition: int) -> None:
        self._cluster.compact(topic, partition)

    async def abort(self, topic: str, count: int) -> None:
        with self._cluster.lock:
            [log] = self._cluster.logs(topic)
            log.forget([log.append(0, b"k", b"aborted", ()) for _ in range(count + 1)])

    async def add_partitions(self, topic: str, count: int) -> None:
        self._cluster.add_partitions(topic, count)

    async def expel(self, group_id: str, client_id: str, consumer: BrokerConsumer) -> None:
        self._cluster.expel(group_id, client_id)


class KafkaLevers:
    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    @contextlib.asynccontextmanager
    async def _admin(self) -> AsyncIterator[Any]:
        from aiokafka.admin import AIOKafkaAdminClient

        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    async def truncate(self, topic: str, partition: int, before_offset: int) -> None:
        from aiokafka import TopicPartition
        from aiokafka.admin import RecordsToDelete

        async with self._admin() as admin:
            records = RecordsToDelete(before_offset=before_offset)
            await admin.delete_records({TopicPartition(topic, partition): records})

    async def compact(self, topic: str, partition: int) -> None:
        from aiokafka import AIOKafkaConsumer, TopicPartition

        tp = TopicPartition(topic, partition)
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap)
        await consumer.start()
        try:
            consumer.assign([tp])
            end = (await consumer.end_offsets([tp]))[tp]
            while True:  # the cleaner has its own pace
                consumer.seek(tp, 0)
                offsets = [(await consumer.getone(tp)).offset]
                while offsets[-1] < end - 1:
                    offsets.append((await consumer.getone(tp)).offset)
                if len(offsets) < end:
                    return
                await asyncio.sleep(0.5)
        finally:
            await consumer.stop()

    async def abort(self, topic: str, count: int) -> None:
        from aiokafka import AIOKafkaProducer

        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap, transactional_id=f"aborts-{topic}"
        )
        await producer.start()
        try:
            await producer.begin_transaction()
            for _ in range(count):
                await producer.send_and_wait(topic, b"aborted", key=b"k")
            await producer.abort_transaction()
        finally:
            await producer.stop()

    async def add_partitions(self, topic: str, count: int) -> None:
        from aiokafka.admin import NewPartitions

        async with self._admin() as admin:
            await admin.create_partitions({topic: NewPartitions(total_count=count)})

    async def expel(self, group_id: str, client_id: str, consumer: BrokerConsumer) -> None:
        from aiokafka.protocol.group import LeaveGroupRequest

        lower: Any = consumer
        member_id = lower._consumer._coordinator.member_id
        async with self._admin() as admin:
            coordinator = await admin.find_coordinator(group_id)
            # In the member's name, and without its knowledge.
            request = LeaveGroupRequest(group_id, member_id)
            answer = await admin._send_request_to_node(coordinator, request)
            assert answer.error_code == 0, answer
