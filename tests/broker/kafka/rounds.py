"""A model of a group whose members claim, drain, fall silent, die and come back, round after round.

Members behave as ``handover.py`` does, in sets and numbers alone; the leader's decision is the code under
test. After every single step the model asserts that

* no partition is owned by two members, but for owners the group has expelled and that were not told yet;
* nothing is taken from a member that it was not asked to release and did not let go of itself, whatever
  the leader knows;
* a leaving member, a ghost and one of another version are given nothing, and nobody anything that
  aiokafka would refuse.

:meth:`World.settle` stops the faults and asserts that the group comes to rest.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeAlias

from prosody.broker.kafka.claims import Claim
from prosody.broker.kafka.cooperative import Applicant, Share
from prosody.broker.protocol import TopicPartition

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Decide: TypeAlias = Callable[
        [Mapping[str, int | None], Mapping[str, Applicant]], dict[str, Share]
    ]

ROUNDS_TO_REST = 3


def fewest_moves(everything: int, held: Sequence[int]) -> int:
    """How many partitions must move so that members with so many have equally many, or one more."""
    low, extra = divmod(everything, len(held))
    above = [count - low for count in held if count > low]
    return sum(above) - min(extra, len(above))


class Member:
    """One consumer object, through all its memberships."""

    def __init__(self, process: str, topics: Iterable[str]) -> None:
        self.process = process
        self.topics = frozenset(topics)
        self.id = ""
        self.sequence = 0
        self.generation = -1
        self.leaving = False
        self.held: set[TopicPartition] = set()
        self.releasing: set[TopicPartition] = set()
        self.void: set[TopicPartition] = set()
        """Of those held, the ones it holds no more for the group, which has not told it yet."""

    def claim(self) -> Claim:
        self.sequence += 1
        generation = self.generation if self.held else -1
        return Claim(self.process, self.sequence, generation, self.leaving, frozenset(self.held))

    def let_go(self, partitions: Iterable[TopicPartition]) -> None:
        self.held -= {*partitions}
        self.releasing &= self.held
        self.void &= self.held


class World:
    """A group, its topics, and everybody who thinks to be a member."""

    def __init__(self, decide: Decide) -> None:
        self.decide = decide
        self.counts: dict[str, int] = {"a": 4, "b": 2}
        self.generation = 0
        self.names = 0
        self.members: list[Member] = []
        """The consumers that run, whether the group knows them or not."""
        self.listed: dict[str, Member | Applicant] = {}
        """The group's list: who joins each round, and what was said by those that do not any more."""
        self.history: list[tuple[object, ...]] = []
        """What happened, in words that are put together only when somebody wants to read them."""

    def text(self) -> str:
        """The history, a line for each thing that happened."""
        return "\n".join(" ".join(map(str, words)) for words in self.history)

    # -- what happens -------------------------------------------------------------------------

    def start(self, topics: Iterable[str], number: int = 1) -> None:
        for _ in range(number):
            self.names += 1
            self._enlist(member := Member(f"p{self.names}", topics))
            self.members.append(member)
            self.history.append((member.id, "starts, wants", sorted(member.topics)))

    def _enlist(self, member: Member) -> None:
        self.names += 1
        # Ids do not come in the order of the joins.
        member.id = f"{self.names * 37 % 101}-{self.names}"
        self.listed[member.id] = member

    def drain(self, member: Member, partitions: Iterable[TopicPartition]) -> None:
        """It has drained and committed some of what it was asked for."""
        drained = member.releasing & {*partitions}
        member.let_go(drained)
        self.history.append((member.id, "has drained", drained))

    def leave(self, member: Member) -> None:
        member.leaving = True
        self.history.append((member.id, "is leaving"))

    def depart(self, member: Member) -> None:
        """It has drained everything, and leaves the group."""
        self.members.remove(member)
        self.listed.pop(member.id, None)
        self.history.append((member.id, "departs"))

    def crash(self, member: Member, *, joined: bool) -> None:
        """It is gone; the group lists it for a while, if only for a join it had sent before."""
        self.members.remove(member)
        self.history.append((member.id, "crashes, holding", member.held.copy()))
        self._cut_off(member, joined=joined)

    def reset(self, member: Member, *, joined: bool, zombie: bool) -> None:
        """It comes back under another id; as a zombie it has not noticed and claims all it had."""
        before = member.id
        self._cut_off(member, joined=joined)
        if zombie:
            member.void |= member.held
        else:
            member.let_go(member.held.copy())
        self._enlist(member)
        self.history.append(
            (before, "comes back as", member.id, "still holding", member.held.copy())
        )

    def _cut_off(self, member: Member, *, joined: bool) -> None:
        if member.id in self.listed:
            del self.listed[member.id]
            if joined:
                self.listed[member.id] = Applicant(member.topics, member.claim())

    def expel(self, member: Member) -> None:
        """Its session has expired, and it does not know."""
        self.listed.pop(member.id, None)
        member.void |= member.held
        self.history.append((member.id, "is expelled and does not know"))

    def unsubscribe(self, member: Member, topic: str) -> None:
        """Its pattern does not match any more; whatever it claims, aiokafka lets it have nothing."""
        member.topics -= {topic}
        member.void |= {tp for tp in member.held if tp.topic == topic}
        self.history.append((member.id, "does not want", topic, "any more"))

    def add_foreigner(self, topics: Iterable[str]) -> None:
        self.names += 1
        self.listed[f"{self.names}-foreign"] = Applicant(frozenset(topics), None)
        self.history.append((f"{self.names}-foreign", "asks to join"))

    def forget_ghosts(self) -> None:
        """The sessions of those that are gone have expired."""
        self.listed = {m: it for m, it in self.listed.items() if isinstance(it, Member)}

    # -- a round ------------------------------------------------------------------------------

    def round(
        self,
        chance: random.Random,
        *,
        known: Mapping[str, int] | None = None,
        deaf: Iterable[Member] = (),
        expelled: Iterable[Member] = (),
    ) -> dict[str, Share]:
        """Everybody joins, the leader decides, everybody is told.

        :param known: the leader's view of the topics, if not the true one.
        :param deaf: members that are not told: their synchronisation fails.
        :param expelled: members whose session expires before they are told.
        """
        applicants = {
            member: Applicant(it.topics, it.claim()) if isinstance(it, Member) else it
            for member, it in self.listed.items()
        }
        self.generation += 1
        self.history.append(("round", self.generation, "the leader knows", known or self.counts))
        self.history += [("   ", member, "says", *it) for member, it in applicants.items()]
        self._drain_some(chance)
        counts: dict[str, int | None] = dict(self.counts if known is None else known)
        shares = self.decide(counts, applicants)
        self.history += [("   ", member, "gets", *share) for member, share in shares.items()]
        others = [*applicants.items()]
        chance.shuffle(others)
        assert shares == self.decide(counts, dict(others)), "the order of the members matters"
        self._check_decision(counts, applicants, shares)
        told = [m for m in self.members if m.id in self.listed and m not in deaf]
        chance.shuffle(told)
        for member in told:
            if member in expelled:
                self.expel(member)
            self.history.append((member.id, "is told"))
            self._tell(member, shares[member.id])
            self.check()
            self._drain_some(chance)
        return shares

    def _drain_some(self, chance: random.Random) -> None:
        for member in self.members:
            if member.releasing and chance.random() < 0.2:
                self.drain(member, [tp for tp in sorted(member.releasing) if chance.random() < 0.5])

    def _tell(self, member: Member, share: Share) -> None:
        lost = member.held - share.assigned - member.void
        assert not lost, f"taken from {member.id} without asking: {lost}"
        member.let_go(member.held - share.assigned)
        member.releasing |= share.release & member.held
        if not member.leaving:
            # What is to be released but is not held was let go of during the round.
            member.held |= share.assigned - share.release
        member.generation = self.generation
        member.void = set() if member.id in self.listed else member.held.copy()

    # -- what always holds --------------------------------------------------------------------

    def _check_decision(
        self,
        counts: Mapping[str, int | None],
        applicants: Mapping[str, Applicant],
        shares: Mapping[str, Share],
    ) -> None:
        assert set(shares) == set(applicants)
        newest: dict[str, int] = {}
        for _, claim in applicants.values():
            if claim is not None:
                newest[claim.process] = max(newest.get(claim.process, 0), claim.sequence)
        for member, (topics, claim) in applicants.items():
            assigned, release = shares[member]
            assert release <= assigned
            assert {tp.topic for tp in assigned} <= topics, "aiokafka raises"
            new = assigned - (claim.partitions if claim else frozenset())
            assert all(counts.get(tp.topic) is not None for tp in new), "of an unknown topic"
            if claim is None:
                assert not assigned, "given to a foreigner"
            elif claim.sequence < newest[claim.process]:
                assert not assigned, "given to a ghost"
            elif claim.leaving:
                assert assigned <= claim.partitions, "given to a leaving member"
        hands = Counter(tp for share in shares.values() for tp in share.assigned)
        assert all(count == 1 for count in hands.values()), "assigned twice"
        takers = {
            member: claim
            for member, (_, claim) in applicants.items()
            if claim and not claim.leaving and claim.sequence == newest[claim.process]
        }
        if len({applicants[member].topics for member in takers}) == 1:
            # A leaving member still has some of what there is; what the leader has not heard of stays.
            known = {tp for tp in hands if tp.partition < (counts.get(tp.topic) or 0)}
            everything = len(known)
            kept = [
                len(shares[m].assigned & claim.partitions & known) for m, claim in takers.items()
            ]
            moved = sum(len(shares[m].release) for m in takers)
            assert moved == fewest_moves(everything, kept), "moved more than balance needs"

    def check(self) -> None:
        hands = Counter(tp for member in self.members for tp in member.held - member.void)
        twice = [tp for tp, count in hands.items() if count > 1]
        assert not twice, f"in two hands: {twice}"

    def settle(self, chance: random.Random) -> None:
        """No more faults: after three rounds nothing moves, and everything is shared out evenly.

        The ghosts of members that came back are still listed; other processes that are gone are not.
        """
        processes = {member.process for member in self.members}
        for name, it in list(self.listed.items()):
            gone = isinstance(it, Applicant) and it.claim and it.claim.process not in processes
            if gone:
                del self.listed[name]
        for member in self.members:
            if member.id not in self.listed:
                self.reset(member, joined=False, zombie=False)
        for _ in range(ROUNDS_TO_REST - 1):
            self.round(chance)
            for member in list(self.members):
                self.drain(member, member.releasing.copy())
        before = {member.id: member.held.copy() for member in self.members}
        shares = self.round(chance)
        assert not any(share.release for share in shares.values()), "still moving"
        assert before == {member.id: member.held for member in self.members}, "moved at rest"
        self._check_even()

    def _check_even(self) -> None:
        takers = [member for member in self.members if not member.leaving]
        owner = {tp: member for member in self.members for tp in member.held}
        for topic, count in self.counts.items():
            able = [member for member in takers if topic in member.topics]
            for tp in (TopicPartition(topic, n) for n in range(count)):
                if able:
                    assert owner[tp] in able, f"{tp} is not where it could be"
                    least = min(len(member.held) for member in able)
                    assert len(owner[tp].held) - least <= 1, f"{owner[tp].id} has too many"
