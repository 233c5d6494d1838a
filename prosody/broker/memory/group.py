"""A consumer group: members, who holds what, who is to hold what, and committed offsets.

There is no round in which everybody stops. A rebalance computes a new *target*; each member then goes
its own way from what it *holds* to its target: it revokes what it should not hold, releases each
partition when its listener returned for it, and takes what is its by target and held by nobody. A
partition has one holder at most, and a member that keeps a partition does not notice.

Everything here is called with the cluster's lock held, and calls nobody's code but the members' ``notify``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from prosody.broker.balance import balance
from prosody.broker.protocol import OffsetAndMetadata, TopicPartition
from prosody.errors import BrokerError, CommitMetadataTooLargeError

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
        vanish: Callable[[], None],
    ) -> None:
        self.client_id = client_id
        self.topics = topics
        self.patterns = patterns
        self.rebalance_timeout_s = rebalance_timeout_s
        self.clock = clock
        self.loop = loop
        self.notify = notify
        """Makes the consumer look for its next step; from any thread."""
        self.vanish = vanish
        """Ends the consumer as a crash does; from any thread."""
        self.alive = True
        """False once it left or was thrown out: its partitions are others'."""
        self.dead = False
        """Crashed: it does nothing any more, and the group has not noticed yet."""
        self.leaving = False
        """About to stop: it gives up what others can take, and is given nothing more."""
        self.news_held = False
        """It hears nothing of its group, as a process that is stopped by a signal (for tests)."""
        self.lost: set[TopicPartition] = set()
        """Partitions that vanished under it (their topic was deleted), not yet reported."""
        self.revoking: set[TopicPartition] = set()
        """Partitions it holds and is giving up: their revoke has begun."""

    def subscribes(self, topic: str) -> bool:
        return topic in self.topics or any(p.match(topic) for p in self.patterns)


class Step(NamedTuple):
    """What a member has to do next. A revoke ends with ``Group.release``, for each partition alone."""

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
        self.gone: set[Member] = set()
        """Thrown out, and has not heard of it."""
        self.target: dict[TopicPartition, Member] = {}
        self.holders: dict[TopicPartition, Member] = {}
        self.committed: dict[TopicPartition, OffsetAndMetadata] = {}
        self.asked: dict[TopicPartition, float] = {}
        """What its holder is to give up, and since when on the holder's clock."""
        self.unsettled = False
        """Whether the group counts as between two assignments (for tests)."""

    # -- membership ---------------------------------------------------------------------------

    def join(self, member: Member, topics: Mapping[str, int]) -> None:
        """Take a member in. ``topics`` are all topics with their partition counts."""
        self.members[member] = None
        self.rebalance(topics)

    def remove(self, members: Iterable[Member], topics: Mapping[str, int]) -> None:
        """Throw members out: they hold nothing from now on."""
        for member in members:
            self._drop(member)
        self.rebalance(topics)

    def leave(self, member: Member, topics: Mapping[str, int]) -> None:
        """A member stops, or one that was thrown out does."""
        self.remove([member], topics)
        self.gone.discard(member)

    def leave_soon(self, member: Member, topics: Mapping[str, int]) -> None:
        """``member`` is about to stop: what it has, and what was meant for it, goes to others."""
        member.leaving = True
        self.rebalance(topics)

    def overdue(self) -> list[Member]:
        """Members that did not give up in time what others wait for, or whose loop has ended."""
        late = {self.holders[tp] for tp in self.asked if self._left_s(tp) <= 0}
        return [m for m in self.members if m.loop.is_closed() or (m in late and not m.dead)]

    def _left_s(self, tp: TopicPartition) -> float:
        """How long the holder of a partition still has to give it up."""
        holder = self.holders[tp]
        return self.asked[tp] + holder.rebalance_timeout_s - holder.clock()

    def _drop(self, member: Member) -> None:
        member.alive = False
        self.members.pop(member, None)
        if not member.dead:
            self.gone.add(member)
        self.holders = {tp: m for tp, m in self.holders.items() if m is not member}
        member.notify()

    # -- rebalance ----------------------------------------------------------------------------

    def rebalance(self, topics: Mapping[str, int]) -> None:
        """Compute the target anew and tell the members."""
        for member in [m for m in self.members if m.loop.is_closed()]:
            # A ghost: its loop ended without leaving. Nobody can call its listener any more.
            self._drop(member)
        self.gone = {m for m in self.gone if not m.loop.is_closed()}
        subscribers = {
            topic: found
            for topic in sorted(topics)
            if (found := [m for m in self.members if m.subscribes(topic) and not m.leaving])
        }
        # Of a member that leaves, where nobody else could take it: it stays until it has left.
        kept = {
            tp: m
            for tp, m in self.holders.items()
            if m.leaving
            and tp not in m.revoking
            and tp.topic in topics
            and tp.topic not in subscribers
        }
        tps = [TopicPartition(topic, n) for topic in subscribers for n in range(topics[topic])]
        self.target = balance(tps, subscribers, self.target, self.holders) | kept
        self.generation += 1
        self._ask_anew(self.asked)
        self.tell_all()

    def _ask_anew(self, before: Mapping[TopicPartition, float]) -> None:
        self.asked = {
            tp: before[tp] if tp in before else holder.clock()
            for tp, holder in self.holders.items()
            if self.target.get(tp) is not holder
        }

    def restored(self) -> None:
        """After an outage: who was to give up something has all its time again."""
        self._ask_anew({})
        self.tell_all()

    def tell_all(self) -> None:
        """Make everybody look."""
        for member in (*self.members, *self.gone):
            member.notify()

    def forget_topic(self, topic: str) -> None:
        """The topic was deleted: nobody holds its partitions, its offsets are gone."""
        for tp, member in list(self.holders.items()):
            if tp.topic == topic:
                member.lost.add(tp)
                member.revoking.discard(tp)
                del self.holders[tp]
                self.asked.pop(tp, None)
        self.target = {tp: m for tp, m in self.target.items() if tp.topic != topic}
        self.committed = {tp: o for tp, o in self.committed.items() if tp.topic != topic}

    # -- one member's way to its target -------------------------------------------------------

    def next_step(self, member: Member, holding: Collection[TopicPartition]) -> Step | None:
        """What ``member`` has to do next; None when it is at its target, or has to wait for others.

        Taking is done here already: who is told ``assign`` holds the partitions.

        :param holding: what the consumer believes it holds; all lost when it is a member no more.
        """
        if not member.alive:
            self.gone.discard(member)
            return Step("lost", frozenset(holding))
        if member.lost:
            lost, member.lost = member.lost, set()
            return Step("lost", frozenset(lost))
        revoke = [
            tp
            for tp, m in self.holders.items()
            if m is member and self.target.get(tp) is not m and tp not in m.revoking
        ]
        if revoke:
            member.revoking.update(revoke)
            return Step("revoke", frozenset(revoke))
        free = [tp for tp, m in self.target.items() if m is member and tp not in self.holders]
        if free:
            for tp in free:
                self.holders[tp] = member
            return Step("assign", frozenset(free))
        return None

    def release(self, member: Member, partitions: Collection[TopicPartition]) -> None:
        """``member`` gives partitions up, if it holds them; who they are meant for is told."""
        waiting: dict[Member, None] = {}
        for tp in partitions:
            member.lost.discard(tp)
            member.revoking.discard(tp)
            if self.holders.get(tp) is member:
                del self.holders[tp]
                self.asked.pop(tp, None)
                if (owner := self.target.get(tp)) is not None:
                    waiting[owner] = None
        for owner in waiting:
            owner.notify()

    def wait_s(self, member: Member) -> float | None:
        """How long ``member`` waits at most for partitions that others still hold; None: for none.

        For what a dead member holds it waits until that is thrown out.
        """
        waits = [
            self._left_s(tp)
            for tp in self.asked
            if self.target.get(tp) is member and not self.holders[tp].dead
        ]
        return max(min(waits), 0.0) if waits else None

    # -- offsets ------------------------------------------------------------------------------

    def commit(
        self,
        member: Member,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        max_metadata_chars: int,
    ) -> None:
        """Keep offsets, all or none.

        :raises CommitMetadataTooLargeError: when a note is longer than ``max_metadata_chars``.
        :raises BrokerError: not retriable, when one is of a partition ``member`` does not hold;
            retriable, when the group is between two assignments.
        """
        foreign = [tp for tp in offsets if self.holders.get(tp) is not member]
        if foreign:
            raise BrokerError(
                f"commit refused: group {self.group_id!r} (generation {self.generation}) has not "
                f"assigned {_names(foreign)} to client {member.client_id!r}",
                retriable=False,
            )
        if self.unsettled:
            raise BrokerError(
                f"commit refused: group {self.group_id!r} is between two assignments",
                retriable=True,
            )
        kept = {TopicPartition(*tp): OffsetAndMetadata(*o) for tp, o in offsets.items()}
        if too_long := [tp for tp, o in kept.items() if len(o.metadata) > max_metadata_chars]:
            raise CommitMetadataTooLargeError(
                f"commit refused: the metadata for {_names(too_long)} has more than the "
                f"{max_metadata_chars} characters allowed",
                retriable=False,
            )
        self.committed.update(kept)

    def check_valid(self) -> None:
        """Assert the invariants; for tests."""
        assert set(self.holders.values()) <= set(self.members), "a partition held by no member"
        assert set(self.target.values()) <= set(self.members), "a partition meant for no member"
        for tp, member in self.target.items():
            assert member.subscribes(tp.topic), f"{tp} meant for a member that does not want it"
            holds = self.holders.get(tp) is member
            assert holds or not member.leaving, f"{tp} meant for a member that is leaving"
        asked = {tp for tp, m in self.holders.items() if self.target.get(tp) is not m}
        assert set(self.asked) == asked, (
            "what is to be given up is not what its holder was asked for"
        )
        for member in self.members:
            held = {tp for tp, m in self.holders.items() if m is member}
            assert member.revoking <= held, "a member gives up what it does not hold"


def _names(partitions: Collection[TopicPartition]) -> str:
    return ", ".join(f"{topic}:{partition}" for topic, partition in sorted(partitions))
