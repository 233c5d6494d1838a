"""The embedded broker's groups, without any asyncio: balance, stickiness, one hand for each partition."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
)

from prosody.broker.balance import balance
from prosody.broker.memory.group import Group, Member
from prosody.broker.protocol import OffsetAndMetadata, TopicPartition
from prosody.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


class FakeLoop:
    """As much of an event loop as a group looks at."""

    def __init__(self) -> None:
        self.closed = False

    def is_closed(self) -> bool:
        return self.closed


class Client:
    """What a consumer does with its steps, one at a time, when the test says so."""

    clock = 0.0

    def __init__(self, name: str, topics: frozenset[str]) -> None:
        self.loop = FakeLoop()
        self.name = name
        self.topics = topics
        self.holding: set[TopicPartition] = set()
        self.revoking: list[TopicPartition] = []
        self.told: list[tuple[str, frozenset[TopicPartition]]] = []
        self.member = self.make_member()

    def make_member(self) -> Member:
        return Member(
            self.name,
            self.topics,
            (),
            rebalance_timeout_s=10.0,
            clock=lambda: Client.clock,
            loop=self.loop,  # type: ignore[arg-type]  # a stand-in
            notify=lambda: None,
            vanish=lambda: None,
        )

    def advance(self, group: Group, counts: Mapping[str, int]) -> bool:
        """Do the next step; False when there is nothing to do."""
        step = group.next_step(self.member, self.holding)
        if step is None:
            return False
        self.told.append(step)
        assert step.partitions or step.kind == "lost"
        if step.kind == "assign":
            assert not self.holding & step.partitions
            assert not self.member.leaving
            self.holding |= step.partitions
        elif step.kind == "revoke":
            assert self.holding >= step.partitions
            assert not set(self.revoking) & step.partitions, "revoked twice"
            self.revoking += sorted(step.partitions)
        else:
            assert self.holding >= step.partitions, "lost what it did not hold any more"
            self._forget(step.partitions)
            if not self.member.alive:
                assert not self.holding
                leaving, self.member = self.member.leaving, self.make_member()
                self.member.leaving = leaving
                group.join(self.member, counts)
        return True

    def end_revoke(self, group: Group, which: int) -> bool:
        """The listener is done with one of those being revoked."""
        if not self.revoking:
            return False
        tp = self.revoking[which % len(self.revoking)]
        self._forget({tp})
        group.release(self.member, {tp})
        return True

    def _forget(self, partitions: Collection[TopicPartition]) -> None:
        self.holding.difference_update(partitions)
        self.revoking = [tp for tp in self.revoking if tp not in partitions]


def loads(target: Mapping[TopicPartition, Member], members: Sequence[Member]) -> list[int]:
    counted = Counter(target.values())
    return [counted[m] for m in members]


class GroupMachine(RuleBasedStateMachine):
    """Joins, leaves, losses, ghosts and changes of topics at any moment of any hand-over."""

    clients = Bundle("clients")

    def __init__(self) -> None:
        super().__init__()
        Client.clock = 0.0
        self.group = Group("g")
        self.counts = {"a": 3, "b": 2}
        self.running: list[Client] = []
        self.names = 0

    # -- what happens -------------------------------------------------------------------------

    @rule(target=clients)
    def join(self) -> Client:
        before = dict(self.group.target)
        self.names += 1
        client = Client(f"c{self.names}", frozenset({"a", "b"}))
        self.running.append(client)
        unstable = any(m.loop.is_closed() or m.leaving for m in self.group.members)
        self.group.join(client.member, self.counts)
        if not unstable:
            # Sticky: who joins takes what balance needs; nothing moves between the others.
            moved = {tp for tp, m in self.group.target.items() if before.get(tp, m) is not m}
            assert all(self.group.target[tp] is client.member for tp in moved)
            assert len(moved) in (0, sum(self.counts.values()) // len(self.group.members))
        return client

    @rule(client=consumes(clients))
    def leave(self, client: Client) -> None:
        self.running.remove(client)
        self._remove(client)

    @rule(client=clients)
    def announce_leaving(self, client: Client) -> None:
        if not client.member.alive:
            return
        self.group.leave_soon(client.member, self.counts)
        keeps: set[TopicPartition] = set()
        if all(m.leaving for m in self.group.members):
            # Nobody else could take it.
            keeps = client.holding - set(client.revoking) - client.member.lost
        target = {tp for tp, m in self.group.target.items() if m is client.member}
        assert target == keeps

    @rule(client=clients)
    def crash(self, client: Client) -> None:
        """It holds what it holds until it is expelled, however long that takes."""
        client.member.dead = True

    @rule(client=clients)
    def expel(self, client: Client) -> None:
        self._remove(client)

    def _remove(self, client: Client) -> None:
        before = dict(self.group.target)
        ghosts = any(m.loop.is_closed() for m in self.group.members)
        if client in self.running:
            self.group.remove([client.member], self.counts)
        else:
            self.group.leave(client.member, self.counts)
            assert client.member not in self.group.gone
        if not ghosts:
            for tp, member in self.group.target.items():
                # Sticky: only what the one that left had goes to others.
                assert before[tp] is member or before[tp] is client.member

    @rule(client=consumes(clients))
    def become_a_ghost(self, client: Client) -> None:
        client.loop.closed = True
        self.running.remove(client)

    @rule(topic=st.sampled_from("ab"), more=st.integers(1, 3))
    def add_partitions(self, topic: str, more: int) -> None:
        before = dict(self.group.target)
        ghosts = any(m.loop.is_closed() for m in self.group.members)
        self.counts[topic] = self.counts.get(topic, 0) + more
        self.group.rebalance(self.counts)
        if not ghosts:
            assert all(self.group.target[tp] is m for tp, m in before.items())

    @rule(topic=st.sampled_from("ab"))
    def delete_topic(self, topic: str) -> None:
        self.counts.pop(topic, None)
        self.group.forget_topic(topic)
        self.group.rebalance(self.counts)

    @rule(client=clients)
    def advance(self, client: Client) -> None:
        if not client.member.dead:
            client.advance(self.group, self.counts)

    @rule(client=clients, which=st.integers(0, 9))
    def end_revoke(self, client: Client, which: int) -> None:
        if not client.member.dead:
            client.end_revoke(self.group, which)

    @rule(client=clients, seconds=st.floats(0, 12))
    def time_passes(self, client: Client, seconds: float) -> None:
        Client.clock += seconds
        if client.member.dead:
            return
        if (wait_s := self.group.wait_s(client.member)) is not None and wait_s <= 0:
            late = self.group.overdue()
            assert late, "told to look, and nobody was late"
            assert not any(m.dead and not m.loop.is_closed() for m in late)
            self.group.remove(late, self.counts)

    @rule()
    def settle(self) -> None:
        """Whatever has happened, everybody reaches the target, if the dead are thrown out."""
        self.group.remove([m for m in self.group.members if m.dead], self.counts)
        for _ in range(20 + 8 * len(self.running) + 8 * sum(self.counts.values())):
            moving = [
                c.advance(self.group, self.counts) or c.end_revoke(self.group, 0)
                for c in self.running
            ]
            if not any(moving):
                waits = [self.group.wait_s(c.member) for c in self.running]
                known = [w for w in waits if w is not None]
                if not known:
                    break
                Client.clock += min(known)
                self.group.remove(self.group.overdue(), self.counts)
        else:
            pytest.fail("the group never settled")
        for client in self.running:
            assert client.member.alive
            assert not client.member.lost
            mine = {tp for tp, m in self.group.target.items() if m is client.member}
            assert client.holding == mine
        if not any(m.loop.is_closed() for m in self.group.members):
            assert self.group.holders == self.group.target

    # -- what always holds --------------------------------------------------------------------

    @invariant()
    def the_group_is_valid(self) -> None:
        self.group.check_valid()

    @invariant()
    def every_partition_is_meant_for_one_member(self) -> None:
        if any(not m.leaving for m in self.group.members):
            everything = {TopicPartition(t, n) for t, c in self.counts.items() for n in range(c)}
            assert set(self.group.target) == everything

    @invariant()
    def nobody_has_two_more_than_another(self) -> None:
        if staying := [m for m in self.group.members if not m.leaving]:
            found = loads(self.group.target, staying)
            assert max(found) - min(found) <= 1

    @invariant()
    def no_partition_is_in_two_hands(self) -> None:
        hands = Counter(tp for c in self.running if c.member.alive for tp in c.holding)
        lost = {tp for c in self.running for tp in c.member.lost}
        assert all(count == 1 or tp in lost for tp, count in hands.items())
        for client in self.running:
            if client.member.alive:
                assert client.member not in self.group.gone
                held = {tp for tp, m in self.group.holders.items() if m is client.member}
                assert client.member.revoking == set(client.revoking) - client.member.lost
                assert held == client.holding - client.member.lost


GroupMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestGroup = GroupMachine.TestCase


@given(
    counts=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9), min_size=1),
    wishes=st.lists(st.sets(st.sampled_from("abcd"), min_size=1), min_size=1, max_size=6),
)
def test_balance_with_different_subscriptions(
    counts: dict[str, int], wishes: list[set[str]]
) -> None:
    subscribers = {t: [m for m, wish in enumerate(wishes) if t in wish] for t in counts}
    partitions = [TopicPartition(t, n) for t in counts for n in range(counts[t])]
    target = balance(partitions, subscribers, {}, {})
    assert set(target) == {tp for tp in partitions if subscribers[tp.topic]}
    load = Counter(target.values())
    for tp, owner in target.items():
        assert owner in subscribers[tp.topic]
        assert load[owner] - min(load[m] for m in subscribers[tp.topic]) <= 1
    assert balance(partitions, subscribers, target, {}) == target


def test_a_topic_spreads_over_the_members() -> None:
    subscribers = {"a": ["one"], "b": ["one"]}
    partitions = [TopicPartition(t, n) for t in "ab" for n in range(4)]
    alone = balance(partitions, subscribers, {}, {})
    both = balance(partitions, {t: ["one", "two"] for t in "ab"}, alone, {})
    assert Counter((tp.topic, m) for tp, m in both.items()) == {
        (t, m): 2 for t in "ab" for m in ("one", "two")
    }


def test_an_orphan_rather_goes_back_to_its_holder() -> None:
    tp = TopicPartition("a", 0)
    assert balance([tp], {"a": ["one", "two"]}, {}, {tp: "two"}) == {tp: "two"}
    assert balance([tp], {"a": ["one", "two"]}, {}, {}) == {tp: "one"}


def test_a_commit_is_kept_whole_or_not_at_all() -> None:
    group, client = Group("g"), Client("c", frozenset("a"))
    group.join(client.member, {"a": 1})
    client.advance(group, {"a": 1})
    group.commit(client.member, {TopicPartition("a", 0): OffsetAndMetadata(1)}, 9)
    with pytest.raises(BrokerError, match=r"group 'g' .* has not assigned a:1 to client 'c'"):
        group.commit(
            client.member,
            {
                TopicPartition("a", 0): OffsetAndMetadata(2),
                TopicPartition("a", 1): OffsetAndMetadata(2),
            },
            9,
        )
    assert group.committed == {("a", 0): (1, "")}


def test_the_generation_rises_with_each_rebalance() -> None:
    group, seen = Group("g"), [0]
    for n in range(3):
        group.join(Client(str(n), frozenset("a")).member, {"a": 4})
        seen.append(group.generation)
    assert seen == sorted(set(seen))
