"""The leader's decision, one round at a time: rule by rule, and as properties of any group."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prosody.broker.kafka.claims import Claim
from prosody.broker.kafka.cooperative import Applicant, Share, share_out
from prosody.broker.protocol import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hypothesis.strategies import DrawFn

    Group = tuple[dict[str, int | None], dict[str, Applicant]]

TOPIC = frozenset("t")


def tps(*numbers: int, topic: str = "t") -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(topic, n) for n in numbers)


def member(
    *numbers: int,
    process: str,
    generation: int = 1,
    sequence: int = 1,
    leaving: bool = False,
    topics: frozenset[str] = TOPIC,
) -> Applicant:
    return Applicant(topics, Claim(process, sequence, generation, leaving, tps(*numbers)))


def foreigner(topics: Iterable[str] = TOPIC) -> Applicant:
    return Applicant(frozenset(topics), None)


NOTHING = Share(frozenset(), frozenset())


# -- rule by rule -----------------------------------------------------------------------------


def test_a_newcomer_gets_nothing_before_others_have_let_go() -> None:
    old, new = member(0, 1, 2, 3, process="old"), member(process="new")
    first = share_out({"t": 4}, {"a": old, "b": new})
    assert first == {"a": Share(tps(0, 1, 2, 3), tps(2, 3)), "b": NOTHING}
    second = share_out({"t": 4}, {"a": member(0, 1, process="old"), "b": new})
    assert second == {"a": Share(tps(0, 1), tps()), "b": Share(tps(2, 3), tps())}


def test_what_nobody_claims_is_given_at_once() -> None:
    shares = share_out({"t": 3}, {"a": member(0, process="a"), "b": member(process="b")})
    assert {m: len(s.assigned) for m, s in shares.items()} == {"a": 2, "b": 1}
    assert not any(share.release for share in shares.values())


def test_a_slow_member_holds_up_only_what_it_still_has() -> None:
    """Of 2 and 3, meant for b and c, only 2 has been let go of."""
    group = {"a": member(0, 1, 2, process="a"), "b": member(process="b"), "c": member(process="c")}
    assert share_out({"t": 3}, group)["a"].release == tps(1, 2)
    group["a"] = member(0, 1, process="a")
    shares = share_out({"t": 3}, group)
    assert shares == {"a": Share(tps(0, 1), tps(1)), "b": NOTHING, "c": Share(tps(2), tps())}


def test_the_newest_claim_wins() -> None:
    zombie = member(0, 1, process="zombie", generation=4)
    owner = member(0, process="owner", generation=7)
    shares = share_out({"t": 2}, {"a": zombie, "z": owner})
    assert shares == {"a": Share(tps(1), tps()), "z": Share(tps(0), tps())}


def test_of_equally_new_claims_one_wins() -> None:
    group = {"b": member(0, process="one"), "a": member(0, process="two")}
    assert share_out({"t": 1}, group)["a"].assigned == tps(0)


def test_the_ghost_of_a_member_that_came_back_is_nobody() -> None:
    ghost = member(0, 1, process="p", sequence=5, generation=9)
    back = member(process="p", sequence=6, generation=-1)
    assert share_out({"t": 2}, {"a": ghost, "b": back}) == {
        "a": NOTHING,
        "b": Share(tps(0, 1), tps()),
    }


def test_sequences_of_different_processes_do_not_compare() -> None:
    group = {"a": member(0, process="p", sequence=1), "b": member(1, process="q", sequence=99)}
    shares = share_out({"t": 2}, group)
    assert [shares[m].assigned for m in "ab"] == [tps(0), tps(1)]


def test_a_leaving_member_gives_everything_and_gets_nothing() -> None:
    group = {"a": member(0, 1, process="a", leaving=True), "b": member(process="b")}
    assert share_out({"t": 3}, group) == {
        "a": Share(tps(0, 1), tps(0, 1)),
        "b": Share(tps(2), tps()),
    }


def test_a_leaving_member_keeps_what_nobody_could_take() -> None:
    other = member(process="b", topics=frozenset("u"))
    group = {"a": member(0, process="a", leaving=True), "b": other, "c": foreigner()}
    assert share_out({"t": 1, "u": 0}, group)["a"] == Share(tps(0), tps())


def test_when_all_leave_nobody_gets_anything_new() -> None:
    group = {m: member(n, process=m, leaving=True) for n, m in enumerate("ab")}
    assert share_out({"t": 3}, group) == {
        "a": Share(tps(0), tps()),
        "b": Share(tps(1), tps()),
    }


def test_a_member_of_another_version_gets_nothing_and_stops_nobody() -> None:
    shares = share_out({"t": 2}, {"a": foreigner(), "b": member(0, process="b")})
    assert shares == {"a": NOTHING, "b": Share(tps(0, 1), tps())}


@pytest.mark.parametrize("partitions", [{}, {"t": None}])
def test_claims_of_a_topic_that_is_unknown_stay(partitions: dict[str, int | None]) -> None:
    """A broker that has just come back may not know it yet; its owners find out."""
    group = {"a": member(0, process="a"), "b": member(process="b")}
    assert share_out(partitions, group) == {"a": Share(tps(0), tps()), "b": NOTHING}


def test_claims_of_a_topic_not_subscribed_to_are_void() -> None:
    group = {"a": member(0, process="a", topics=frozenset("u")), "b": member(process="b")}
    assert share_out({"t": 1, "u": 0}, group) == {"a": NOTHING, "b": Share(tps(0), tps())}


def test_a_claim_beyond_the_leaders_count_stays() -> None:
    shares = share_out({"t": 2}, {"a": member(0, 5, process="a"), "b": member(process="b")})
    assert shares == {"a": Share(tps(0, 5), tps()), "b": Share(tps(1), tps())}


def test_a_claim_beyond_the_leaders_count_is_not_asked_back() -> None:
    """This leader could give it to nobody: it would lie idle until a leader knows better."""
    shares = share_out({"t": 0}, {"a": member(0, 5, process="a"), "b": member(process="b")})
    assert shares == {"a": Share(tps(0, 5), tps()), "b": NOTHING}


def test_nobody_is_given_anything_of_nothing() -> None:
    assert share_out({}, {}) == {}
    assert share_out({"t": 0}, {"a": member(process="a")}) == {"a": NOTHING}


# -- any group --------------------------------------------------------------------------------


@st.composite
def groups(draw: DrawFn) -> Group:
    topics = ["s", "t", "u"]
    counts = st.one_of(st.none(), st.integers(0, 6), st.integers(0, 6))
    partitions = draw(st.dictionaries(st.sampled_from(topics), counts))
    some_topics = st.one_of(st.just(frozenset(topics)), st.frozensets(st.sampled_from(topics)))
    claimed = st.builds(TopicPartition, st.sampled_from(topics), st.integers(0, 7))
    claims = st.builds(
        Claim,
        process=st.sampled_from("pqrst"),
        sequence=st.integers(1, 3),
        generation=st.integers(-1, 3),
        leaving=st.sampled_from([False, False, True]),
        partitions=st.frozensets(claimed),
    )
    applicants = st.builds(Applicant, some_topics, st.one_of(claims, claims, claims, st.none()))
    return partitions, draw(st.dictionaries(st.text("abcdef", min_size=1), applicants, max_size=8))


def living(applicants: Mapping[str, Applicant]) -> dict[str, Claim]:
    """Slowly, by the rule's own words."""
    readable = {m: a.claim for m, a in applicants.items() if a.claim is not None}
    return {
        m: mine
        for m, mine in readable.items()
        if not any(
            mine.process == other.process and (other.sequence, n) > (mine.sequence, m)
            for n, other in readable.items()
        )
    }


def claimants(group: Group, tp: TopicPartition) -> list[str]:
    """Who claims a partition with right, the one that has it first."""
    _, applicants = group
    found = [
        (-claim.generation, m)
        for m, claim in living(applicants).items()
        if tp in claim.partitions and tp.topic in applicants[m].topics
    ]
    return [m for _, m in sorted(found)]


@given(group=groups())
@settings(max_examples=400)
def test_one_round_of_any_group(group: Group) -> None:
    partitions, applicants = group
    shares = share_out(partitions, applicants)
    assert set(shares) == set(applicants)
    claims = living(applicants)
    claimed = {tp for claim in claims.values() for tp in claim.partitions}
    known = {TopicPartition(t, n) for t, count in partitions.items() for n in range(count or 0)}
    for tp in known | claimed:
        hands = [m for m, share in shares.items() if tp in share.assigned]
        takers = [
            m
            for m, claim in claims.items()
            if tp.topic in applicants[m].topics and not claim.leaving
        ]
        if rightful := claimants(group, tp):
            assert hands == [rightful[0]], "a claimed partition is not where it was"
        elif tp in known and takers:
            assert len(hands) == 1, "not given, or twice"
            assert hands[0] in takers, "given to one that must not have it"
        else:
            assert not hands
        if hands and claims[hands[0]].leaving:
            assert (tp in shares[hands[0]].release) == bool(takers and tp in known)
    for m, share in shares.items():
        assert share.release <= share.assigned
        if m in claims:
            assert share.release <= claims[m].partitions, "asked back in the round it is given"
        else:
            assert share == NOTHING


@given(group=groups(), seed=st.integers(0, 2**32))
def test_any_leader_decides_the_same(group: Group, seed: int) -> None:
    partitions, applicants = group
    order = random.Random(seed)
    shuffled = list(applicants.items())
    order.shuffle(shuffled)
    topics = list(partitions.items())
    order.shuffle(topics)
    assert share_out(dict(topics), dict(shuffled)) == share_out(partitions, applicants)


def follow(
    group: Group, released: Mapping[str, frozenset[TopicPartition]], generation: int
) -> Group:
    """The next round's group, in which all did as told, but let go of no more than ``released``."""
    partitions, applicants = group
    shares = share_out(partitions, applicants)
    return partitions, {
        m: applicant
        if applicant.claim is None
        else applicant._replace(
            claim=applicant.claim._replace(
                generation=generation,
                partitions=shares[m].assigned - released.get(m, frozenset()),
            )
        )
        for m, applicant in applicants.items()
    }


def released(group: Group) -> dict[str, frozenset[TopicPartition]]:
    return {m: share.release for m, share in share_out(*group).items()}


@given(group=groups(), seed=st.integers(0, 2**32))
@settings(max_examples=300)
def test_it_ends_where_the_first_round_meant_it_to(group: Group, seed: int) -> None:
    """However members let go, all at once or one by one, everything is where it would have been."""
    at_once = follow(group, released(group), 10)
    at_once = follow(at_once, released(at_once), 10)
    assert not any(released(at_once).values()), "the second round asks for more"
    assert follow(at_once, {}, 10) == at_once, "moves at rest"

    chance = random.Random(seed)
    slowly, generation = group, 0
    while waiting := sorted((m, tp) for m, share in released(slowly).items() for tp in share):
        # Never none, so that it ends.
        done = [waiting.pop(chance.randrange(len(waiting)))]
        done += [one for one in waiting if chance.random() < 0.4]
        part = {m: frozenset(tp for n, tp in done if n == m) for m, _ in done}
        slowly, generation = follow(slowly, part, generation), generation + 1
    assert follow(slowly, {}, 10) == at_once


def test_fifty_join_at_once() -> None:
    group: Group = ({"t": 1000}, {f"m{n}": member(process=f"p{n}") for n in range(50)})
    group[1]["m7"] = member(*range(1000), process="p7")
    after = follow(group, released(group), 2)
    shares = share_out(*after)
    assert {len(share.assigned) for share in shares.values()} == {20}
    assert not any(share.release for share in shares.values())
