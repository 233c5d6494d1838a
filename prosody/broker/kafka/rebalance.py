"""What happens to the assignment: aiokafka's rebalance callbacks become our listener's."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from aiokafka import ConsumerRebalanceListener
from aiokafka import TopicPartition as LowerPartition

from prosody.broker.kafka import internals
from prosody.broker.protocol import TopicPartition
from prosody.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prosody.broker.protocol import RebalanceListener

log = logging.getLogger(__name__)


class Assignment(ConsumerRebalanceListener):  # type: ignore[misc]  # the base has no types
    """The partitions a consumer holds, and under which membership.

    aiokafka speaks the eager protocol: each rebalance revokes everything, then assigns anew. It calls
    ``on_partitions_revoked`` and ``on_partitions_assigned`` from one task, in turn, and cannot tell a
    revoked assignment from a lost one; the membership noted at assignment can.

    ::

        nobody's ──on_partitions_assigned──▶ held ──(listener returned)──▶ held and pollable
           ▲                                                                       │
           └──(listener returned, commits done)── held ◀──on_partitions_revoked───┤ revoked
           └───────────────────────────────────────────────on_partitions_revoked──┘ lost

    ``held`` may be committed, ``pollable`` may be polled.
    """

    def __init__(
        self,
        consumer: Any,
        listener: RebalanceListener,
        *,
        fetch_bytes: int,
        commit_grace_s: float,
        on_pollable: Callable[[], None],
    ) -> None:
        self._consumer = consumer
        self._listener = listener
        self._fetch_bytes = fetch_bytes
        self._commit_grace_s = commit_grace_s
        self._on_pollable = on_pollable
        self._membership: internals.Membership | None = None
        self._open_commits: set[asyncio.Future[None]] = set()
        self._closed = False
        self.held: frozenset[TopicPartition] = frozenset()
        self.pollable: dict[TopicPartition, Any] = {}
        """Ours to aiokafka's own: its ``getmany`` insists on its class."""

    # -- called by the consumer ---------------------------------------------------------------------

    def close(self) -> None:
        """No partition is held and no listener called any more."""
        self._closed = True
        self.held = frozenset()
        self.pollable = {}

    def is_intact(self) -> bool:
        """Whether the membership is the one the held partitions were given to."""
        return self._membership == internals.membership(self._consumer)

    def require(self, partitions: Iterable[TopicPartition], doing: str) -> None:
        """Check that all ``partitions`` are held under the present membership.

        :raises BrokerError: when one is not, or the membership was lost.
        """
        foreign = sorted(tp for tp in partitions if tp not in self.held)
        if foreign:
            names = ", ".join(f"{tp[0]}/{tp[1]}" for tp in foreign)
            raise BrokerError(f"{doing}: not assigned to this member: {names}", retriable=False)
        if not self.is_intact():
            raise BrokerError(
                f"{doing}: the group has thrown this member out, its partitions are lost",
                retriable=False,
            )

    def commit_begins(self) -> asyncio.Future[None]:
        """A future the committer sets when done; a rebalance waits for it."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open_commits.add(future)
        future.add_done_callback(self._open_commits.discard)
        return future

    # -- called by aiokafka --------------------------------------------------------------------------

    async def on_partitions_revoked(self, revoked: object) -> None:
        """Before a join. aiokafka logs and forgets what is raised here, so nothing is."""
        self.pollable = {}
        # The first join of a consumer revokes nothing, which is no news.
        if not self.held or self._closed:
            return
        partitions = self.held
        if not self.is_intact():
            self.held = frozenset()
            await self._tell("on_lost", partitions)
            return
        try:
            await self._tell("on_revoked", partitions)
        finally:
            self.held = frozenset()
        # A commit still under way would reach the broker among the new generation's.
        if self._open_commits:
            _, late = await asyncio.wait(self._open_commits, timeout=self._commit_grace_s)
            for future in late:
                future.cancel()

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """After a join; the consumer may commit and seek from now on, and poll once told."""
        given = {TopicPartition(tp.topic, tp.partition): tp for tp in assigned}
        self._membership = internals.membership(self._consumer)
        if not given or self._closed:
            return
        internals.limit_partition_fetch(
            self._consumer, partition_fetch_bytes(self._fetch_bytes, len(given))
        )
        self.held = frozenset(given)
        await self._tell("on_assigned", self.held)
        if not self._closed:
            self.pollable = given
            # Their records may be buffered already, and a poll wait for the news of it.
            self._on_pollable()

    async def _tell(self, event: str, partitions: frozenset[TopicPartition]) -> None:
        try:
            await getattr(self._listener, event)(partitions)
        except Exception:
            # A listener does not raise, so this is a fault of ours. Going on keeps the group alive:
            # the partitions change hands whether or not the listener coped.
            log.exception("rebalance listener failed in %s for %s", event, sorted(partitions))


NOT_ASSIGNED = LowerPartition("", 0)
"""A partition nobody can have; asking for it polls without taking any record."""

_LEAST_FETCH = 16 * 1024
_MOST_FETCH = 1024 * 1024


def partition_fetch_bytes(budget: int, partitions: int) -> int:
    """Bytes asked for per partition, so that all of them together stay within ``budget``.

    aiokafka never fetches a partition of which it still has records, so each holds at most one fetch,
    buffered or under way, whatever the number of brokers: ``partitions * result <= budget``, compressed
    as on the wire. At most 1 MiB, which is enough for full speed, and at least 16 KiB, below which a
    fetch costs more than it brings (only then, above ``budget / 16 KiB`` partitions, is the budget
    passed). A record batch larger than the result is still delivered, alone: the broker sees to that.
    """
    return max(_LEAST_FETCH, min(_MOST_FETCH, budget // max(1, partitions)))
