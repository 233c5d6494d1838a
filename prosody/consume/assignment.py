"""Which partitions are held: what happens when they come and go."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from prosody.consume.committer import where_to_run_again
from prosody.consume.partition import Partition
from prosody.errors import BrokerError
from prosody.model.fields import fields_of, fields_of_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prosody.broker.protocol import BrokerConsumer, Start, TopicPartition
    from prosody.consume.committer import Committer
    from prosody.consume.shared import Shared

_log = logging.getLogger("prosody.assignment")

CANCEL_AT = 0.8
"""The share of ``shutdown_timeout`` after which running handlers are told to stop."""

COMMIT_TIMEOUT_S = 10.0
"""How long the last commit of a shutdown may take, on top of ``shutdown_timeout``."""

_RESTART_DELAY_S = 1.0
"""Pause before a partition that met a fault of ours starts again."""


class Assignment:
    """The partitions of one subscription; the broker's rebalance listener.

    ::

        assigned ──▶ held ──(revoked: drained, committed)──▶ given up
                      └──(lost, at any time; revoke cut short)──▶ given up, nothing committed

    A partition that is being revoked stays held until its last commit, so the regular commits cover it
    too. Revokes run beside each other.
    """

    def __init__(self, shutdown_timeout_s: float) -> None:
        self._shutdown_timeout_s = shutdown_timeout_s
        self._held: dict[TopicPartition, Partition] = {}
        self._epoch = 0
        self._numbers: dict[TopicPartition, int] = {}
        """What stands for each partition in what its keys are charged to, over its assignments."""
        self._closing = False
        self._ending: set[Partition] = set()
        """Held, and about to be given up: these do not start again."""
        self._restarts: set[asyncio.Task[None]] = set()
        self._shared: Shared
        self._committer: Committer
        self._consumer: BrokerConsumer

    def connect(self, shared: Shared, committer: Committer, consumer: BrokerConsumer) -> None:
        """Give the parts that need this object before they can be made."""
        self._shared = shared
        self._committer = committer
        self._consumer = consumer

    def partitions(self) -> tuple[Partition, ...]:
        """The partitions held now."""
        return tuple(self._held.values())

    def get(self, topic_partition: TopicPartition) -> Partition | None:
        """The partition, if it is held."""
        return self._held.get(topic_partition)

    def __len__(self) -> int:
        return len(self._held)

    # The broker's RebalanceListener

    def on_assigned(self, starts: Mapping[TopicPartition, Start]) -> None:
        if self._closing:
            return  # gained on the way out: never started, so the next owner finds nothing amiss
        for tp, start in sorted(starts.items()):
            if tp in self._held:
                _log.warning(
                    "assigned again without a revoke, kept: %s",
                    self._held[tp].name,
                    extra=fields_of(tp),
                )
                continue
            partition = self._start(tp, start)
            self._shared.counts.assigned += 1
            _log.info(
                "assigned %s (epoch %d), from offset %d",
                partition.name,
                partition.epoch,
                partition.progress.offset,
                extra=fields_of(tp, partition.progress.offset),
            )
        self._shared.want_records()

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        given_up = [self._held[tp] for tp in sorted(partitions) if tp in self._held]
        for partition in given_up:
            self._shared.counts.revoked += 1
            _log.info(
                "revoked %s (epoch %d), draining",
                partition.name,
                partition.epoch,
                extra=fields_of(partition.topic_partition),
            )
        try:
            await self._give_up(given_up, None)
        except asyncio.CancelledError:
            self._abandon(given_up)
            raise
        except Exception:  # noqa: BLE001
            # A fault of ours. The group must get its partitions all the same.
            _log.critical(
                "internal fault in a revoke; please report this",
                exc_info=True,
                extra=fields_of_all(partitions),
            )
            self._abandon(given_up)

    def on_lost(self, partitions: frozenset[TopicPartition]) -> None:
        for tp in sorted(partitions):
            partition = self._held.get(tp)
            if partition is not None:
                self._shared.counts.lost += 1
                _log.warning(
                    "lost %s (epoch %d)", partition.name, partition.epoch, extra=fields_of(tp)
                )
                self._forget(partition)
                partition.lose()

    # Called by the consumer

    async def close(self) -> None:
        """Give everything up; restarts under way are dropped. Ends within the shutdown's limits."""
        self._consumer.leaving()
        self._closing = True
        for restart in self._restarts:
            restart.cancel()
        await self._give_up(self.partitions(), COMMIT_TIMEOUT_S)

    def restart(self, partition: Partition, error: BaseException) -> None:
        """A fault of ours met ``partition``: begin it again at its committable offset."""
        if isinstance(error, asyncio.CancelledError) or self._shared.loop.is_closed():
            return  # the whole loop is on its way out
        _log.critical(
            "internal fault, restarting %s from its last finished offset; please report this",
            partition.name,
            exc_info=error,
            extra=fields_of(partition.topic_partition),
        )
        if self._closing:
            return
        task = self._shared.loop.create_task(self._restart(partition), name="prosody-restart")
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    async def _restart(self, partition: Partition) -> None:
        # Handlers still running must end before their keys may run again.
        await partition.drain(0.0, self._shutdown_timeout_s)
        await partition.wait_ended()
        await self._shared.runtime.sleep(_RESTART_DELAY_S)
        tp = partition.topic_partition
        if self._held.get(tp) is not partition or partition in self._ending:
            return  # given up in the meantime, or about to be
        start = partition.progress.begin_again()
        try:
            self._consumer.seek(tp, start.offset)
        except BrokerError as error:
            # The broker has taken it away already, and is about to say so.
            _log.warning(
                "not restarted, %s is no longer assigned: %s",
                partition.name,
                error,
                extra=fields_of(tp),
            )
            return
        fresh = self._start(tp, start)
        self._shared.counts.restarts += 1
        if partition.progress.to_commit() is not None:
            fresh.progress.committed = None  # the start was never committed: it is still to be
        self._shared.want_records()

    # Steps

    def _start(self, tp: TopicPartition, start: Start) -> Partition:
        self._epoch += 1
        number = self._numbers.setdefault(tp, self._epoch)
        partition = self._held[tp] = Partition(tp, self._epoch, start, self._shared, number)
        if partition.durable is not None:
            partition.durable.start()
        return partition

    async def _give_up(self, partitions: Iterable[Partition], timeout_s: float | None) -> None:
        """Drain partitions side by side, commit what they finished, forget them."""
        partitions = tuple(partitions)
        self._ending.update(partitions)
        limit_s = self._shutdown_timeout_s
        await asyncio.gather(*(p.drain(CANCEL_AT * limit_s, limit_s) for p in partitions))
        await self._committer.commit_finally(partitions, timeout_s)
        for partition in partitions:
            self._forget(partition)

    def _forget(self, partition: Partition) -> None:
        self._ending.discard(partition)
        tp = partition.topic_partition
        if self._held.get(tp) is partition:
            del self._held[tp]
        if partition.runs and self._numbers.get(tp) == partition.number:
            # Left behind or lost, these are still charged. The next assignment of the partition must
            # not meet them: it begins with nothing charged to its keys.
            del self._numbers[tp]

    def _abandon(self, partitions: Iterable[Partition]) -> None:
        """The group does not wait for the last commit of ``partitions``: they are another's now."""
        left = [p for p in partitions if self._held.get(p.topic_partition) is p]
        again = [p for p in left if p.runs or p.progress.to_commit() is not None]
        if again:
            _log.error(
                "revoke cut short, given up without a last commit; what has finished since the one "
                "before, and what still runs, will run again: %s",
                where_to_run_again(again),
                extra=fields_of_all(p.topic_partition for p in again),
            )
        for partition in left:
            self._forget(partition)
            partition.lose()
