"""Sends committable offsets to the broker: on an interval, at a revoke, at shutdown."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from prosody.broker.protocol import OffsetAndMetadata
from prosody.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prosody.broker.protocol import BrokerConsumer, TopicPartition
    from prosody.consume.assignment import Assignment
    from prosody.consume.partition import Partition
    from prosody.runtime import Runtime

_log = logging.getLogger("prosody.commit")

_INTERVAL_S_MIN = 0.01
"""A ``commit_interval`` of 0 is legal; it must not make this a loop without rest."""

_RETRY_S = 0.1
"""Pause between tries of a final commit."""


class Committer:
    """One commit at a time, always of explicit offsets, never of a partition given up.

    The lock is what keeps commits and rebalances apart: a revoke takes it, so no commit is in flight
    when the partitions go, and the next one is computed from those still held.
    """

    def __init__(
        self,
        consumer: BrokerConsumer,
        assignment: Assignment,
        interval_s: float,
        runtime: Runtime,
    ) -> None:
        self._consumer = consumer
        self._assignment = assignment
        self._interval_s = max(interval_s, _INTERVAL_S_MIN)
        self._runtime = runtime
        self._lock = asyncio.Lock()
        self._failing = False

    async def run(self) -> None:
        """Commit every ``commit_interval`` until cancelled."""
        while True:
            await self._runtime.sleep(self._interval_s)
            async with self._lock:
                await self._commit(self._assignment.partitions())

    async def commit_finally(self, partitions: Iterable[Partition], timeout_s: float) -> None:
        """Commit for the last time before ``partitions`` are given up; repeat what may succeed.

        Raises nothing: what cannot be committed is logged, and will be run again by the next owner.
        """
        partitions = tuple(partitions)
        try:
            async with asyncio.timeout(timeout_s), self._lock:
                while not await self._commit(partitions):
                    await self._runtime.sleep(_RETRY_S)
        except TimeoutError:
            _log.error(
                "final commit not acknowledged within %.3g s; what finished since the last commit "
                "will run again: %s",
                timeout_s,
                ", ".join(p.name for p in partitions if p.to_commit() is not None),
            )

    async def _commit(self, partitions: Iterable[Partition]) -> bool:
        """One commit of everything that moved. True unless trying again may help."""
        moved: dict[TopicPartition, tuple[Partition, int]] = {}
        for partition in partitions:
            offset = partition.to_commit()
            # One that was lost while others drained would make the broker refuse the whole commit.
            held = self._assignment.get(partition.topic_partition) is partition
            if held and offset is not None:
                moved[partition.topic_partition] = (partition, offset)
        if not moved:
            return True
        try:
            await self._consumer.commit(
                {tp: OffsetAndMetadata(offset) for tp, (_, offset) in moved.items()}
            )
        except BrokerError as error:
            # Nothing is lost by going on: the same offsets, or later ones, are in the next commit.
            if not self._failing:
                self._failing = True
                _log.warning("commit failed%s: %s", "" if error.retriable else " for good", error)
            return not error.retriable
        if self._failing:
            self._failing = False
            _log.info("commits succeed again")
        for partition, offset in moved.values():
            partition.committed = offset
        return True
