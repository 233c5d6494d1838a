"""Where newly assigned partitions begin: at what the group has committed, or at the log's beginning."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from prosody.broker.kafka import internals
from prosody.broker.kafka.errors import mapped
from prosody.broker.protocol import OffsetAndMetadata, Start
from prosody.model.fields import fields_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from prosody.broker.protocol import TopicPartition

log = logging.getLogger(__name__)

CALL_LIMIT_S = 30.0


class Starts:
    """Asks the broker; every call has a deadline and raises ``BrokerError``."""

    def __init__(self, consumer: Any, group_id: str) -> None:
        self._consumer = consumer
        self._group_id = group_id

    async def find(
        self, partitions: Collection[TopicPartition], refused: frozenset[TopicPartition]
    ) -> dict[TopicPartition, Start]:
        """Where to begin each of ``partitions``.

        :param refused: those whose committed offset the broker has refused to read at. Of the others an
            offset beyond the end is tried all the same: after a change of leader the end that a broker
            names may lag for a moment, and beginning anew would run everything again.
        """
        committed = await self.committed(partitions)
        beginnings = await self.beginnings(partitions)
        ends = await self.ends(partitions)
        return {
            tp: self._start(tp, committed[tp], beginnings[tp], ends[tp], tp in refused)
            for tp in partitions
        }

    def _start(
        self,
        tp: TopicPartition,
        committed: OffsetAndMetadata | None,
        beginning: int,
        end: int,
        refused: bool,
    ) -> Start:
        if committed is None:
            return Start(beginning, "", end)
        offset, metadata = committed
        if offset < beginning:
            log.warning(
                "records of %s/%d at offsets %d to %d are gone before group %r has handled them: "
                "retention is shorter than its lag",
                tp.topic, tp.partition, offset, beginning - 1, self._group_id,
                extra=fields_of(tp, beginning),
            )  # fmt: skip
            return Start(beginning, "", end)
        if offset <= end:
            return Start(offset, metadata, end)
        if not refused:
            return Start(offset, "", end)
        log.warning(
            "%s/%d begins at offset %d: group %r has committed %d, beyond the end %d, so that was "
            "another log (the topic was made anew, or cut off)",
            tp.topic, tp.partition, beginning, self._group_id, offset, end,
            extra=fields_of(tp, beginning),
        )  # fmt: skip
        return Start(beginning, "", end)

    async def bounds(self, partition: TopicPartition) -> tuple[int, int]:
        """The offset of the first record, and the one that the next record will get."""
        beginnings = await self.beginnings((partition,))
        ends = await self.ends((partition,))
        return beginnings[partition], ends[partition]

    async def committed(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, OffsetAndMetadata | None]:
        """What the group has committed; None where nothing is."""
        with mapped(f"committed offsets of group {self._group_id!r}"):
            async with asyncio.timeout(CALL_LIMIT_S):
                found = await internals.committed(self._consumer, partitions)
        return {
            tp: OffsetAndMetadata(found[tp].offset, found[tp].metadata) if tp in found else None
            for tp in partitions
        }

    async def beginnings(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        """The offset of the first record of each."""
        with mapped("beginning offsets"):
            async with asyncio.timeout(CALL_LIMIT_S):
                found = await self._consumer.beginning_offsets(list(partitions))
        return {tp: found[tp] for tp in partitions}

    async def ends(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The offset that the next record of each will get; of open transactions, where they began."""
        with mapped("end offsets"):
            async with asyncio.timeout(CALL_LIMIT_S):
                found = await self._consumer.end_offsets(list(partitions))
        return {tp: found[tp] for tp in partitions}
