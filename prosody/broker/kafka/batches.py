"""Writes many records at a time: whole batches, which aiokafka delivers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaProducer

from prosody._core import frame_records
from prosody.broker.kafka import lifetimes
from prosody.broker.kafka.errors import LowerError, broker_error, mapped
from prosody.broker.kafka.patience import keep_batches, pace_metadata, serve_the_others
from prosody.broker.kafka.record_batch import RecordBatch
from prosody.broker.partitioners import Partitions
from prosody.broker.values import Written
from prosody.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prosody.broker.kafka.security import KafkaSecurity
    from prosody.broker.protocol import ProducerSettings
    from prosody.runtime import Runtime

START_LIMIT_S: Final = 10.0
STOP_GRACE_S: Final = 1.0
BATCH_BYTES: Final = 2 * 1024 * 1024
"""Of a batch before it is compressed, which holds up the loop for a millisecond or two; what a broker
limits is what it is afterwards."""
BATCH_LIFE_S: Final = 30.0
"""A batch that finds no leader for so long fails."""
LOOKS: Final = 5
"""How often a topic is asked for before it counts as missing: one that the broker makes at the first
question is there a moment later. The client's pace keeps the questions 0.1 s apart."""


class KafkaBatches:
    """Implements :class:`~prosody.broker.protocol.BrokerBatches`.

    No idempotence, so nothing can wedge it; of a partition one request is under way at a time, so a retry
    overtakes nothing.
    """

    def __init__(
        self,
        bootstrap_servers: tuple[str, ...],
        settings: ProducerSettings,
        *,
        runtime: Runtime,
        security: KafkaSecurity,
    ) -> None:
        self._servers = bootstrap_servers
        self._settings = settings
        self._runtime = runtime
        self._security = security
        self._partitions = Partitions(settings.partitioner, runtime.random)
        self._producer: Any = None
        self._topic = ""
        self._count = 0
        self._added: dict[int, list[RecordBatch]] = {}
        """By partition; the last of each still takes records."""

    async def start(self) -> None:
        producer = self._producer = AIOKafkaProducer(
            bootstrap_servers=list(self._servers),
            client_id=self._settings.client_id,
            acks=1,
            **self._security.client_options(),
        )
        pace_metadata(producer.client, self._runtime)
        keep_batches(producer, BATCH_LIFE_S)
        serve_the_others(producer)
        lifetimes.track_requests(producer)
        with mapped(f"cannot connect to Kafka at {', '.join(self._servers)}"):
            await lifetimes.start_client(producer, START_LIMIT_S)

    async def find(self, topic: str, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                self._count = await self._find(topic)
        except TimeoutError as error:
            text = f"no broker told of topic {topic!r} within {timeout_s:g} s"
            raise BrokerError(text, retriable=True) from error
        self._topic = topic

    async def _find(self, topic: str) -> int:
        client = self._producer.client
        answered = True
        for look in range(LOOKS):
            if partitions := client.cluster.partitions_for_topic(topic):
                return len(partitions)
            # By name: a broker that makes topics by itself makes it now, as for every producer.
            asked = client.add_topic(topic) if not look else client.force_metadata_update()
            answered = bool(await asked)
        if partitions := client.cluster.partitions_for_topic(topic):
            return len(partitions)
        raise BrokerError(
            f"topic {topic!r} does not exist" if answered else "no broker answers", retriable=True
        )

    def add(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        added = self._added
        partitions = self._partitions.of(keys, self._count)
        for partition in {*partitions}.difference(added):
            added[partition] = [self._new()]
        open_batches = {partition: batches[-1] for partition, batches in added.items()}
        done = 0
        while done < len(keys):
            done = frame_records(open_batches, partitions, keys, values, done)
            partition = partitions[done - 1]
            if open_batches[partition].full:
                open_batches[partition] = self._new()
                added[partition].append(open_batches[partition])

    def _new(self) -> RecordBatch:
        return RecordBatch(int(self._runtime.wall() * 1000), BATCH_BYTES)

    async def write(self, timeout_s: float) -> Written:
        added, self._added = self._added, {}
        if not added:
            return Written(0, None)
        writes = [
            asyncio.ensure_future(self._write(partition, batches, timeout_s))
            for partition, batches in added.items()
        ]
        try:
            results = await asyncio.gather(*writes)
        finally:
            await lifetimes.cancel_all(writes, STOP_GRACE_S)  # only when this was cancelled
        lost = sum(result.lost for result in results)
        return Written(lost, next((result.problem for result in results if result.problem), None))

    async def _write(self, partition: int, batches: list[RecordBatch], timeout_s: float) -> Written:
        """Write the batches of a partition one after the other."""
        left = sum(batch.record_count() for batch in batches)
        lost = 0
        problem: BrokerError | None = None
        what = f"write to {self._topic!r} partition {partition}"
        try:
            async with asyncio.timeout(timeout_s):
                for batch in batches:
                    count = batch.record_count()
                    if not count:
                        break  # made when the one before it was full
                    try:
                        sent = await self._producer.send_batch(
                            batch, self._topic, partition=partition
                        )
                        await sent
                    except (*LowerError, AssertionError) as error:
                        # The latter: the topic was made anew, with fewer partitions.
                        lost += count
                        problem = broker_error(what, error)
                    left -= count
        except TimeoutError:
            # What is left may still be delivered; nobody waits for it any more.
            lost += left
            text = f"{what}: not acknowledged within {timeout_s:g} s"
            problem = BrokerError(text, retriable=True)
        return Written(lost, problem)

    async def stop(self) -> None:
        producer, self._producer = self._producer, None
        self._added = {}
        if producer is not None:
            await lifetimes.abandon_producer(producer, STOP_GRACE_S)
