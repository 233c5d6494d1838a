"""Sends to the broker what is finished: on an interval, at a revoke, at shutdown."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from prosody.broker.protocol import OffsetAndMetadata
from prosody.consume.progress import METADATA_MAX
from prosody.errors import BrokerError, CommitMetadataTooLargeError
from prosody.model.fields import fields_of_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prosody.broker.protocol import BrokerConsumer, TopicPartition
    from prosody.consume.assignment import Assignment
    from prosody.consume.partition import Partition
    from prosody.runtime import Runtime

_log = logging.getLogger("prosody.commit")

_INTERVAL_S_MIN = 0.01
"""A ``commit_interval`` of 0 is legal; it must not make this a loop without rest."""

_RETRY_S = 0.1
"""Pause between tries of a final commit."""

_METADATA_MIN = 64
"""Characters; a broker that takes less is sent no metadata at all."""


def _nobody(_: float, __: BaseException | None) -> None:
    """Nobody wants to know."""


class Committer:
    """One commit at a time, always of explicit offsets, never of a partition given up.

    Each carries what is finished ahead of the offset. The two are computed together, after the group
    has settled and right before they are sent, and anew for each try: a rebalance may have taken
    partitions, and time has brought others further.
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
        self.took: Callable[[float, BaseException | None], None] = _nobody
        """Told of each commit when it began and how it failed, right after its end."""
        self._metadata_max = METADATA_MAX
        """What this broker takes, as far as it is known."""

    async def run(self) -> None:
        """Commit every ``commit_interval`` until cancelled."""
        while True:
            await self._runtime.sleep(self._interval_s)
            # What is worth another try is in the next commit, as it is then.
            await self._commit(self._assignment.partitions())

    async def commit_finally(
        self, partitions: Iterable[Partition], timeout_s: float | None
    ) -> None:
        """Commit for the last time before ``partitions`` are given up.

        Repeated until it succeeds, is refused for good or the partitions are lost, or for
        ``timeout_s``. Raises nothing: what cannot be committed is logged, and run again by the next
        owner.
        """
        left = partitions = tuple(partitions)
        reason = "refused for good"
        try:
            async with asyncio.timeout(timeout_s):
                while left := await self._commit(left):
                    await self._runtime.sleep(_RETRY_S)
        except TimeoutError:
            reason = f"not acknowledged within {timeout_s:.3g} s"
        failed = self._unsaved(partitions)
        if failed:
            _log.error(
                "last commit %s; what has finished since the one before will run again: %s",
                reason,
                where_to_run_again(failed),
                extra=fields_of_all(p.topic_partition for p in failed),
            )

    async def _commit(self, partitions: Iterable[Partition]) -> tuple[Partition, ...]:
        """Commit what has changed, and return those partitions that are worth another try.

        When it is refused for good, because of one of them perhaps, each is tried alone.
        """
        await self._consumer.settled()
        async with self._lock:
            sent, refusal = await self._send(partitions)
        if refusal is None:
            return ()
        if refusal.retriable:
            return sent
        if len(sent) == 1:
            return ()
        left: list[Partition] = []
        for partition in sent:
            left += await self._commit((partition,))
        return tuple(left)

    async def _send(
        self, partitions: Iterable[Partition]
    ) -> tuple[tuple[Partition, ...], BrokerError | None]:
        """One commit, in the form that the broker takes: of what, and how it was refused."""
        while True:
            sent = self._unsaved(partitions)
            if not sent:
                return (), None
            reached = [p.progress.reached for p in sent]
            texts = [p.progress.text(self._metadata_max) for p in sent]
            try:
                await self._timed(
                    {
                        p.topic_partition: OffsetAndMetadata(r.offset, text)
                        for p, r, text in zip(sent, reached, texts, strict=True)
                    }
                )
            except CommitMetadataTooLargeError as error:
                # The offsets are what counts: again at once, with less beside them.
                if any(texts):
                    self._shrink_metadata(max(map(len, texts)))
                    continue
                self._note_failure(error, sent)
                return sent, error
            except BrokerError as error:
                # Nothing is lost by going on: the caller tries again, or says what runs twice.
                self._note_failure(error, sent)
                return sent, error
            for partition, now in zip(sent, reached, strict=True):
                partition.progress.committed = now
            if self._failing:
                self._failing = False
                _log.info("commits succeed again")
            return sent, None

    async def _timed(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        began = self._runtime.monotonic()
        try:
            await self._consumer.commit(offsets)
        except BrokerError as error:
            self.took(began, error)
            raise
        self.took(began, None)

    def _unsaved(self, partitions: Iterable[Partition]) -> tuple[Partition, ...]:
        """Those still held, and further than their last commit.

        One that was lost while others drained would make the broker refuse the whole commit.
        """
        get = self._assignment.get
        return tuple(
            p
            for p in partitions
            if get(p.topic_partition) is p and p.progress.to_commit() is not None
        )

    def _note_failure(self, error: BrokerError, sent: Iterable[Partition]) -> None:
        if not self._failing:
            self._failing = True
            _log.warning(
                "commit failed%s: %s",
                "" if error.retriable else " for good",
                error,
                extra=fields_of_all(p.topic_partition for p in sent),
            )

    def _shrink_metadata(self, refused: int) -> None:
        """Halve the limit until it is below the length that the broker has refused."""
        while self._metadata_max >= refused:
            self._metadata_max //= 2
        if self._metadata_max < _METADATA_MIN:
            self._metadata_max = 0
        _log.warning(
            "the broker refuses commit metadata of %d characters (offset.metadata.max.bytes), sending "
            "%d at most: more may run twice after a rebalance",
            refused,
            self._metadata_max,
        )


def where_to_run_again(partitions: Iterable[Partition]) -> str:
    """Partitions and the offsets that they will begin at again, for logs."""
    return ", ".join(
        p.name
        if p.progress.committed is None
        else f"{p.name} from offset {p.progress.committed.offset}"
        for p in partitions
    )
