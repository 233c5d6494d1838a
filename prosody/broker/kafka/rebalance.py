"""The partitions a member holds: where they begin, when they may be polled and committed.

aiokafka calls ``on_partitions_revoked`` before each join and ``on_partitions_assigned`` after it, in turn,
from one task. What lies between is different for the two ways of rebalancing, ``eager.py`` and
``handover.py``; what both need is here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from aiokafka import ConsumerRebalanceListener

from prosody.broker.kafka import internals, lifetimes
from prosody.broker.kafka.holding import Holding
from prosody.broker.kafka.polls import partition_fetch_bytes
from prosody.broker.kafka.starts import Starts
from prosody.broker.protocol import TopicPartition
from prosody.errors import BrokerError
from prosody.model.fields import fields_of, fields_of_all

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from prosody.broker.protocol import RebalanceListener
    from prosody.runtime import Runtime

log = logging.getLogger(__name__)

BEGIN_RETRY_S = 0.5
"""Pause between tries to learn where a partition begins."""


class Assignment(ConsumerRebalanceListener):  # type: ignore[misc]  # the base has no types
    """The partitions a consumer holds, and under which membership.

    ::

        nobody's ──(join)──▶ held ──(start found, listener told)──▶ held and pollable ──▶ given up | lost

    ``held`` may be committed, ``pollable`` may be polled. A join is under way from
    ``on_partitions_revoked`` to ``on_partitions_assigned``; nothing is committed in between.
    """

    def __init__(
        self,
        consumer: Any,
        listener: RebalanceListener,
        *,
        group_id: str,
        runtime: Runtime,
        fetch_bytes: int,
        commit_grace_s: float,
        on_pollable: Callable[[], None],
    ) -> None:
        self._consumer = consumer
        self._listener = listener
        self._group_id = group_id
        self._runtime = runtime
        self._fetch_bytes = fetch_bytes
        self._commit_grace_s = commit_grace_s
        self._on_pollable = on_pollable
        self._starts = Starts(consumer, group_id)
        self._membership: internals.Membership | None = None
        self._lower: Any = None
        """aiokafka's state of the present assignment; it has the positions."""
        self._open_commits: set[asyncio.Future[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._settled = asyncio.Event()
        self._settled.set()
        self._closed = False
        self.held: dict[TopicPartition, Holding] = {}
        self.pollable: dict[TopicPartition, Any] = {}
        """Ours to aiokafka's own."""

    # -- called by the consumer ---------------------------------------------------------------------

    def leaving(self) -> None:
        """Take no more partitions."""

    def topics_changed(self, _: object = None) -> None:
        """There is new metadata."""

    async def close(self) -> None:
        """No partition is held, no listener called and no task running any more."""
        self._closed = True
        self.held = {}
        self.pollable = {}
        self._settled.set()
        # A listener may stop its own consumer: then this runs in one of those tasks.
        others = self._tasks - {asyncio.current_task()}
        await lifetimes.cancel_all(others, self._commit_grace_s)

    def require(self, partitions: Iterable[TopicPartition], doing: str) -> None:
        """Check that all ``partitions`` are held, and the group is between no two assignments.

        :raises BrokerError: when one is not held or the membership was lost; retriable during a join.
        """
        foreign = sorted(tp for tp in partitions if tp not in self.held)
        if foreign:
            names = ", ".join(f"{tp[0]}/{tp[1]}" for tp in foreign)
            raise BrokerError(f"{doing}: not assigned to this member: {names}", retriable=False)
        if not self._same_member():
            raise BrokerError(
                f"{doing}: the group has thrown this member out, its partitions are lost",
                retriable=False,
            )
        if not self._settled.is_set():
            raise BrokerError(f"{doing}: a rebalance is under way", retriable=True)

    async def settled(self) -> None:
        """Return once no join is under way."""
        await self._settled.wait()

    def commit_begins(self) -> asyncio.Future[None]:
        """A future the committer sets when done; a join waits for it."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open_commits.add(future)
        future.add_done_callback(self._open_commits.discard)
        return future

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Poll a held partition from ``offset`` on; during a join as soon as it is over."""
        holding = self.held[partition]
        holding.seeks += 1
        self._put(holding, offset)

    def out_of_range(self, partition: TopicPartition, offset: int | None) -> None:
        """The broker has no record at the position of a partition: begin it anew, or where its log does."""
        holding = self.held.get(partition)
        if holding is not None and self.pollable.pop(partition, None) is not None:
            self._spawn(self._begin_again(partition, holding, offset), "begin again")

    # -- what both ways of rebalancing do ---------------------------------------------------------------

    def _same_member(self) -> bool:
        """Whether the member is the one that the held partitions were given to.

        aiokafka resets the member id when the group has thrown the member out; others may own its
        partitions then. The generation alone changes with each join.
        """
        known = self._membership
        return (
            known is not None and known.member_id == internals.membership(self._consumer).member_id
        )

    async def _join_begins(self) -> None:
        """Let no commit be under way: it would reach the broker among those of another generation."""
        self._settled.clear()
        if self._open_commits:
            _, late = await asyncio.wait(self._open_commits, timeout=self._commit_grace_s)
            for future in late:
                future.cancel()

    def _join_ends(self, assigned: Collection[Any]) -> dict[TopicPartition, Any]:
        """Note the new membership; the assigned partitions, ours to aiokafka's own."""
        self._membership = internals.membership(self._consumer)
        self._lower = internals.assignment_state(self._consumer)
        if assigned:
            internals.limit_partition_fetch(
                self._consumer, partition_fetch_bytes(self._fetch_bytes, len(assigned))
            )
        self._settled.set()
        return {TopicPartition(tp.topic, tp.partition): tp for tp in assigned}

    def _lose(self, partitions: Iterable[TopicPartition]) -> None:
        """These are another's already."""
        told = set()
        for tp in partitions:
            holding = self.held.pop(tp)
            self.pollable.pop(tp, None)
            if holding.told:
                told.add(tp)
        if told:
            self._listener.on_lost(frozenset(told))

    def _take(self, given: Mapping[TopicPartition, Any]) -> None:
        """Hold partitions and find out where they begin, one topic apart from the next.

        Beside the callback and not in it, because aiokafka sends no heartbeat until that returns. A
        topic that does not answer, perhaps just deleted, holds up no other.
        """
        by_topic: dict[str, dict[TopicPartition, Holding]] = {}
        for tp, lower in sorted(given.items()):
            holding = self.held[tp] = Holding(lower)
            by_topic.setdefault(tp.topic, {})[tp] = holding
        for topic, batch in by_topic.items():
            self._spawn(self._begin(batch, frozenset()), f"begin {topic}")

    async def _begin(
        self, batch: Mapping[TopicPartition, Holding], refused: frozenset[TopicPartition]
    ) -> None:
        complained = False
        while True:
            wanted = self._still_held(batch)
            if not wanted:
                return
            try:
                starts = await self._starts.find(wanted, refused)
            except BrokerError as error:
                # Still assigned, so still ours to begin: the broker may be away for a moment.
                if not complained:
                    complained = True
                    log.warning(
                        "cannot begin %s yet, trying on: %s",
                        _names(wanted),
                        error,
                        extra=fields_of_all(wanted),
                    )
                await self._runtime.sleep(BEGIN_RETRY_S)
                continue
            await self.settled()
            # No waiting from here on, so that nothing can be taken away in between.
            begun = {tp: starts[tp] for tp in self._still_held(wanted)}
            for tp, start in begun.items():
                holding = batch[tp]
                self._put(holding, start.offset)
                holding.told = True
            if begun:
                self._listener.on_assigned(begun)
                self._make_pollable({tp: batch[tp].lower for tp in begun})
            return

    async def _begin_again(self, tp: TopicPartition, holding: Holding, offset: int | None) -> None:
        """The broker refused to read at ``offset``; None: aiokafka has forgotten the position."""
        seeks = holding.seeks
        while self._still_held({tp: holding}):
            try:
                beginning, end = await self._starts.bounds(tp)
            except BrokerError as error:
                log.warning(
                    "cannot find the bounds of %s yet, trying on: %s",
                    _names((tp,)),
                    error,
                    extra=fields_of(tp),
                )
                await self._runtime.sleep(BEGIN_RETRY_S)
                continue
            await self.settled()
            if not self._still_held({tp: holding}):
                return
            if holding.seeks != seeks:
                self._make_pollable({tp: holding.lower})  # sent elsewhere meanwhile
                return
            if offset is None or offset > end:
                log.warning(
                    "%s ends at offset %d, before the position %s of group %r: the topic was made "
                    "anew or cut off, it is begun anew", _names((tp,)), end, offset, self._group_id,
                    extra=fields_of(tp, offset),
                )  # fmt: skip
                lower = holding.lower
                self._lose((tp,))
                fresh = self.held[tp] = Holding(lower)
                await self._begin({tp: fresh}, frozenset({tp}))
                return
            if offset < beginning:
                log.warning(
                    "records of %s at offsets %d to %d are gone before group %r has read them: "
                    "retention is shorter than its lag", _names((tp,)), offset, beginning - 1,
                    self._group_id, extra=fields_of(tp, beginning),
                )  # fmt: skip
            self._put(holding, max(offset, beginning))
            self._make_pollable({tp: holding.lower})
            return

    def _put(self, holding: Holding, offset: int) -> None:
        """Have ``offset`` polled next: at once, or where aiokafka has no state of the partition now (a
        join is under way, or about to begin as the topics that match a pattern are others) after it."""
        there = self._settled.is_set() and internals.place(self._consumer, holding.lower, offset)
        holding.position = None if there else offset

    def _still_held(self, batch: Mapping[TopicPartition, Holding]) -> dict[TopicPartition, Holding]:
        return {
            tp: holding
            for tp, holding in batch.items()
            if self.held.get(tp) is holding and not holding.releasing
        }

    def _make_pollable(self, partitions: Mapping[TopicPartition, Any]) -> None:
        self.pollable.update(partitions)
        # Their records may be buffered already, and a poll wait for the news of it.
        self._on_pollable()

    def _spawn(self, work: Any, what: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"prosody-kafka {what}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A fault of ours, or of a listener, which does not raise. The group goes on.
            name = task.get_name()
            log.critical("internal fault in %s; please report this", name, exc_info=error)


def _names(partitions: Iterable[TopicPartition]) -> str:
    return ", ".join(f"{tp.topic}/{tp.partition}" for tp in sorted(partitions))
