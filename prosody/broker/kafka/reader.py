"""Reads single records again, by offset, over aiokafka's client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.broker.kafka import lifetimes
from prosody.broker.kafka.link import REQUESTS_IN_TIME, Link, request_limit_s
from prosody.broker.kafka.loads import PartitionLoads
from prosody.broker.protocol import TopicPartition
from prosody.errors import BrokerError

if TYPE_CHECKING:
    from prosody.broker.kafka.security import KafkaSecurity
    from prosody.broker.protocol import ReaderSettings, Record
    from prosody.runtime import Runtime

STOP_GRACE_S = 1.0


class KafkaReader:
    """Implements :class:`~prosody.broker.protocol.BrokerReader`."""

    def __init__(
        self,
        bootstrap_servers: tuple[str, ...],
        settings: ReaderSettings,
        *,
        runtime: Runtime,
        security: KafkaSecurity,
    ) -> None:
        self._settings = settings
        self._runtime = runtime
        self._loads: dict[TopicPartition, PartitionLoads] = {}
        """The partitions that something is wanted of."""
        self._link = Link(
            bootstrap_servers,
            settings,
            runtime=runtime,
            security=security,
            topics=lambda: {tp.topic for tp in self._loads},
        )
        self._stopped = False

    async def read(self, partition: TopicPartition, offset: int) -> Record | None:
        if self._stopped:
            raise _stopped()
        tp = TopicPartition(*partition)
        limit_s = self._settings.seek_timeout_s
        loads = self._loads.get(tp)
        if loads is None:
            loads = self._loads[tp] = PartitionLoads(
                tp,
                self._link,
                discard_threshold=self._settings.discard_threshold,
                attempt_limit_s=REQUESTS_IN_TIME * request_limit_s(limit_s),
                runtime=self._runtime,
                on_idle=self._idle,
            )
        return await loads.load(offset, limit_s)

    async def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        all_loads = list(self._loads.values())
        self._loads.clear()
        for loads in all_loads:
            loads.fail(_stopped())
        await lifetimes.cancel_all([loads.task for loads in all_loads], STOP_GRACE_S)
        await self._link.close()

    def _idle(self, loads: PartitionLoads) -> None:
        if self._loads.get(loads.partition) is loads:
            del self._loads[loads.partition]


def _stopped() -> BrokerError:
    return BrokerError("this reader is stopped", retriable=False)
