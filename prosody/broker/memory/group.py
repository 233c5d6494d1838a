"""A consumer group: members, who holds what, who is to hold what, and committed offsets.

There is no round in which everybody stops. A rebalance computes a new *target*; each member then goes
its own way from what it *holds* to its target: it revokes what it should not hold, releases it when
its listener returned, and takes what is its by target and held by nobody. A partition has one holder
at most, so it is never in two hands, and a member that keeps a partition does not notice.

Everything here is called with the cluster's lock held, and calls nobody's code except
``Member.notify``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from prosody.broker.memory.balance import balance
from prosody.broker.protocol import OffsetAndMetadata, TopicPartition
from prosody.errors import BrokerError

if TYPE_CHECKING:
    import asyncio
    import re
    from collections.abc import Callable, Collection, Iterable, Mapping


class Member:
    """One membership of a consumer; after it was lost, the consumer joins with a new one."""

    def __init__(
        self,
        client_id: str,
        topics: frozenset[str],
        patterns: tuple[re.Pattern[str], ...],
        *,
        rebalance_timeout_s: float,
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
        notify: Callable[[], None],
    ) -> None:
        self.client_id = client_id
        self.topics = topics
        self.patterns = patterns
        self.rebalance_timeout_s = rebalance_timeout_s
        self.clock = clock
        self.loop = loop
        self.notify = notify
        """Makes the consumer look for its next step; from any thread."""
        self.alive = True
        """False once it left or was thrown out: its partitions are others'."""
        self.lost: set[TopicPartition] = set()
        """Partitions that vanished under it (their topic was deleted), not yet reported."""
        self.asked_at: float | None = None
        """Since when it has something to give up; None when it has nothing."""

    def subscribes(self, topic: str) -> bool:
        return topic in self.topics or any(p.match(topic) for p in self.patterns)


class Step(NamedTuple):
    """What a member has to do next."""

    kind: str
    """``lost``, ``revoke`` or ``assign``."""
    partitions: frozenset[TopicPartition]


class Group:
    """State of one consumer group."""

    def __init__(self, group_id: str) -> None:
        self.group_id = group_id
        self.generation = 0
        """Raised at each rebalance that changes the members or the target."""
        self.members: dict[Member, None] = {}
        self.target: dict[TopicPartition, Member] = {}
        self.holders: dict[TopicPartition, Member] = {}
        self.committed: dict[TopicPartition, OffsetAndMetadata] = {}

    # -- membership ---------------------------------------------------------------------------

    def join(self, member: Member, topics: Mapping[str, int]) -> None:
        """Take a member in. ``topics`` are all topics with their partition counts."""
        self.members[member] = None
        self.rebalance(topics)

    def remove(self, members: Iterable[Member], topics: Mapping[str, int]) -> None:
        """Members that leave or are thrown out hold nothing from now on."""
        for member in members:
            self._drop(member)
        self.rebalance(topics)

    def overdue(self) -> list[Member]:
        """Members that did not give up in time what others wait for, or whose loop has ended."""
        return [
            m
            for m in self.members
            if m.loop.is_closed()
            or (m.asked_at is not None and m.clock() - m.asked_at >= m.rebalance_timeout_s)
        ]

    def _drop(self, member: Member) -> None:
        member.alive = False
        self.members.pop(member, None)
        self.holders = {tp: m for tp, m in self.holders.items() if m is not member}
        member.notify()

    # -- rebalance ----------------------------------------------------------------------------

    def rebalance(self, topics: Mapping[str, int]) -> None:
        """Compute the target anew and tell the members."""
        for member in [m for m in self.members if m.loop.is_closed()]:
            # A ghost: its loop ended without leaving. Nobody can call its listener any more.
            self._drop(member)
        subscribers = {
            topic: found
            for topic in sorted(topics)
            if (found := [m for m in self.members if m.subscribes(topic)])
        }
        partitions = [TopicPartition(t, n) for t in subscribers for n in range(topics[t])]
        self.target = balance(partitions, subscribers, self.target, self.holders)
        self.generation += 1
        for member in self.members:
            if not self._gives(member):
                member.asked_at = None
            elif member.asked_at is None:
                member.asked_at = member.clock()
            member.notify()

    def _gives(self, member: Member) -> bool:
        return any(
            m is member and self.target.get(tp) is not member for tp, m in self.holders.items()
        )

    def forget_topic(self, topic: str) -> None:
        """The topic was deleted: nobody holds its partitions, its offsets are gone."""
        for tp, member in list(self.holders.items()):
            if tp.topic == topic:
                member.lost.add(tp)
                del self.holders[tp]
        self.target = {tp: m for tp, m in self.target.items() if tp.topic != topic}
        self.committed = {tp: o for tp, o in self.committed.items() if tp.topic != topic}

    # -- one member's way to its target -------------------------------------------------------

    def next_step(self, member: Member, holding: Collection[TopicPartition]) -> Step | None:
        """What ``member`` has to do next; None when it is at its target, or has to wait for others.

        Taking is done here already: who is told ``assign`` holds the partitions.

        :param holding: what the consumer believes it holds; all lost when it is a member no more.
        """
        if not member.alive:
            return Step("lost", frozenset(holding))
        if member.lost:
            lost, member.lost = member.lost, set()
            return Step("lost", frozenset(lost))
        revoke = [
            tp for tp, m in self.holders.items() if m is member and self.target.get(tp) is not m
        ]
        if revoke:
            return Step("revoke", frozenset(revoke))
        free = [tp for tp, m in self.target.items() if m is member and tp not in self.holders]
        if free:
            for tp in free:
                self.holders[tp] = member
            return Step("assign", frozenset(free))
        return None

    def release(self, member: Member, partitions: Collection[TopicPartition]) -> None:
        """``member`` has finished with partitions it was to revoke; their new owners are told."""
        member.lost.difference_update(partitions)
        waiting: dict[Member, None] = {}
        for tp in partitions:
            if self.holders.get(tp) is member:
                del self.holders[tp]
                if (owner := self.target.get(tp)) is not None:
                    waiting[owner] = None
        # What it was asked for in the meantime it has as long for: the calls come one at a time.
        member.asked_at = member.clock() if self._gives(member) else None
        for owner in waiting:
            owner.notify()

    def wait_s(self, member: Member) -> float | None:
        """How long ``member`` waits at most for partitions that others still hold; None: for none."""
        waits = [
            holder.asked_at + holder.rebalance_timeout_s - holder.clock()
            for tp, owner in self.target.items()
            if owner is member
            and (holder := self.holders.get(tp)) is not None
            and holder is not member
            and holder.asked_at is not None
        ]
        return max(min(waits), 0.0) if waits else None

    # -- offsets ------------------------------------------------------------------------------

    def commit(self, member: Member, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Keep offsets, all or none.

        :raises BrokerError: not retriable, when one is of a partition ``member`` does not hold.
        """
        foreign = [tp for tp in offsets if self.holders.get(tp) is not member]
        if foreign:
            names = ", ".join(f"{tp[0]}:{tp[1]}" for tp in sorted(foreign))
            raise BrokerError(
                f"commit refused: group {self.group_id!r} (generation {self.generation}) has not "
                f"assigned {names} to client {member.client_id!r}",
                retriable=False,
            )
        for (topic, partition), kept in offsets.items():
            self.committed[TopicPartition(topic, partition)] = OffsetAndMetadata(*kept)

    def check_valid(self) -> None:
        """Assert the invariants; for tests."""
        assert set(self.holders.values()) <= set(self.members), "a partition held by no member"
        assert set(self.target.values()) <= set(self.members), "a partition meant for no member"
        for tp, member in self.target.items():
            assert member.subscribes(tp.topic), f"{tp} meant for a member that does not want it"
