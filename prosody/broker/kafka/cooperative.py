"""What the leader of a cooperative group decides in one round. A pure function.

A partition somebody claims stays with its claimant, whatever balance wants: it may be running there. What
balance wants elsewhere is named for release; its owner claims it no more in a later round, and in that one
it is given to the member it was meant for. So a partition changes hands only by way of nobody's.

The leader remembers nothing and may be another one in each round. That later rounds mean the same as the
first is a property of :func:`~prosody.broker.balance.balance`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from prosody.broker.balance import balance
from prosody.broker.protocol import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prosody.broker.kafka.claims import Claim


class Applicant(NamedTuple):
    """A member that has joined."""

    topics: frozenset[str]
    """What it subscribes to."""
    claim: Claim | None
    """None when it could not be read: a member of another version, which is given nothing."""


class Share(NamedTuple):
    """What a member is told."""

    assigned: frozenset[TopicPartition]
    release: frozenset[TopicPartition]
    """Those of ``assigned`` that it should drain and then claim no more."""


def share_out(
    partitions: Mapping[str, int | None], applicants: Mapping[str, Applicant]
) -> dict[str, Share]:
    """Decide what each member gets; the same whichever member does it, and in whatever order they come.

    :param partitions: the number of partitions of each topic as the leader knows it; None, or nothing,
        for a topic it does not know, which nobody gets anything new of.
    :param applicants: the members by their ids.
    """
    claims = _living(applicants)
    owners = _owners(applicants, claims)
    known = {topic: count for topic, count in sorted(partitions.items()) if count is not None}
    takers = [member for member, claim in sorted(claims.items()) if not claim.leaving]
    subscribers = {
        topic: [member for member in takers if topic in applicants[member].topics]
        for topic in known
    }
    # A claimed partition beyond the count, or of an unknown topic, is one this leader has not heard of yet,
    # or a broker that has just come back. It stays where it is, outside the balance: once let go of, this
    # leader could give it to nobody. That a topic was deleted is for its owners to find out.
    everything = [TopicPartition(topic, n) for topic, count in known.items() for n in range(count)]
    target = balance(everything, subscribers, owners, {})

    assigned: dict[str, set[TopicPartition]] = {member: set() for member in applicants}
    release: dict[str, set[TopicPartition]] = {member: set() for member in applicants}
    for tp, owner in owners.items():
        assigned[owner].add(tp)
    for tp, taker in target.items():
        owner = owners.setdefault(tp, taker)
        if owner == taker:
            assigned[taker].add(tp)
        else:
            release[owner].add(tp)
    return {m: Share(frozenset(assigned[m]), frozenset(release[m])) for m in sorted(applicants)}


def _living(applicants: Mapping[str, Applicant]) -> dict[str, Claim]:
    """The claims that count: readable ones, and of each process the one of its newest membership.

    A process that came back under a new id has ended its earlier membership, whatever that claimed;
    the group lists it until its session expires.
    """
    newest: dict[str, tuple[int, str]] = {}
    for member, (_, claim) in applicants.items():
        if claim is not None:
            mine = (claim.sequence, member)
            newest[claim.process] = max(newest.get(claim.process, mine), mine)
    living = {member for _, member in newest.values()}
    return {m: a.claim for m, a in applicants.items() if a.claim is not None and m in living}


def _owners(
    applicants: Mapping[str, Applicant], claims: Mapping[str, Claim]
) -> dict[TopicPartition, str]:
    """Who owns what: where claims meet, the newest is right; an older one is of a member cut off since."""
    owners: dict[TopicPartition, str] = {}
    # Of equal generations the smaller id is right, for no other reason than that one has to be.
    for member, claim in sorted(claims.items(), key=lambda item: (-item[1].generation, item[0])):
        for tp in _valid(applicants[member].topics, claim):
            owners.setdefault(tp, member)
    return owners


def _valid(topics: frozenset[str], claim: Claim) -> Iterator[TopicPartition]:
    """What of a claim can be assigned: of topics that aiokafka lets this member have."""
    for tp in claim.partitions:
        if tp.topic in topics:
            yield tp
