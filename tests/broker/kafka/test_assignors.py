"""Each client has an assignor class of its own; ours speaks aiokafka's language."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.coordinator.protocol import (
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)
from hypothesis import given
from hypothesis import strategies as st

from prosody.broker.kafka.assignors import ASSIGNORS, make_assignor
from prosody.broker.kafka.claims import Claim, decode_claim, encode_claim, encode_release
from prosody.broker.protocol import TopicPartition
from prosody.config import options_own
from prosody.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping


class FakeVoice:
    """A member that holds what the test says."""

    def __init__(self, process: str = "p") -> None:
        self.process = process
        self.held: frozenset[TopicPartition] = frozenset()
        self.sequence = 0
        self.asked: list[frozenset[TopicPartition]] = []

    def claim(self) -> Claim:
        self.sequence += 1
        return Claim(self.process, self.sequence, 3, False, self.held)

    def asked_to_release(self, partitions: frozenset[TopicPartition]) -> None:
        self.asked.append(partitions)


class FakeCluster:
    """As much of aiokafka's cluster as an assignor looks at."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.counts = counts

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range(self.counts[topic])) if topic in self.counts else None


def tps(*numbers: int, topic: str = "t") -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(topic, n) for n in numbers)


def sent(message: Any) -> Any:
    """The message as the other side gets it."""
    return type(message).decode(message.encode())


@pytest.mark.parametrize("name", ["range", "roundrobin", "sticky"])
def test_the_group_knows_it_by_its_name(name: str) -> None:
    assert make_assignor(name).name == name


def test_the_group_knows_ours_by_a_name_of_ours() -> None:
    """Members with another assignor cannot be in its group, whatever they call theirs."""
    assert make_assignor("cooperative", FakeVoice()).name == "prosody-cooperative"


def test_the_options_are_the_assignors_there_are() -> None:
    assert set(options_own.ASSIGNORS) == set(ASSIGNORS)


def test_two_clients_share_no_memory() -> None:
    one, two = make_assignor("sticky"), make_assignor("sticky")
    one.member_assignment = ["mine"]
    one.generation = 7
    assert two.member_assignment is None
    assert two.generation != 7


def test_two_cooperative_clients_speak_for_themselves() -> None:
    voices = FakeVoice("one"), FakeVoice("two")
    classes = [make_assignor("cooperative", voice) for voice in voices]
    said = [decode_claim(c.metadata({"t"}).user_data).process for c in classes]
    assert said == ["one", "two"]


def test_an_unknown_one_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=r"'round-robin' is not known; use one of cooperative"
    ):
        make_assignor("round-robin")


def test_ours_needs_somebody_to_speak_for() -> None:
    with pytest.raises(TypeError, match="needs a voice"):
        make_assignor("cooperative")


def test_a_join_says_what_is_held() -> None:
    voice = FakeVoice()
    voice.held = tps(1, 4)
    said = sent(make_assignor("cooperative", voice).metadata(frozenset({"t", "s"})))
    assert said.subscription == ["s", "t"]
    assert decode_claim(said.user_data) == Claim("p", 1, 3, False, tps(1, 4))


def test_each_join_asks_once() -> None:
    voice = FakeVoice()
    assignor = make_assignor("cooperative", voice)
    for expected in (1, 2, 3):
        assert decode_claim(assignor.metadata({"t"}).user_data).sequence == expected


def test_two_members_through_two_rounds() -> None:
    old, new = FakeVoice("old"), FakeVoice("new")
    old.held = tps(0, 1, 2, 3)
    classes = {"a": make_assignor("cooperative", old), "b": make_assignor("cooperative", new)}

    def a_round(leader: str) -> dict[str, frozenset[TopicPartition]]:
        joins = {m: sent(assignor.metadata({"t"})) for m, assignor in classes.items()}
        told = classes[leader].assign(FakeCluster({"t": 4}), joins)
        for m, assignor in classes.items():
            told[m] = sent(told[m])
            assignor.on_assignment(told[m])
        return {m: frozenset(map(TopicPartition._make, it.partitions())) for m, it in told.items()}

    assert a_round("b") == {"a": tps(0, 1, 2, 3), "b": tps()}
    assert (old.asked, new.asked) == ([tps(2, 3)], [tps()])
    old.held = tps(0, 1)
    assert a_round("a") == {"a": tps(0, 1), "b": tps(2, 3)}
    assert (old.asked[1:], new.asked[1:]) == ([tps()], [tps()])


def test_every_member_is_told_something() -> None:
    """aiokafka cannot read the answer to a member that the leader left out."""
    assignor = make_assignor("cooperative", FakeVoice())
    joins = {m: assignor.metadata({"t", "unknown"}) for m in "ab"}
    told = assignor.assign(FakeCluster({"t": 1}), joins)
    assert set(told) == {"a", "b"}
    assert [sent(told[m]).partitions() for m in "ab"] == [[], [("t", 0)]]


def test_a_member_of_another_version_is_named(caplog: pytest.LogCaptureFixture) -> None:
    assignor = make_assignor("cooperative", FakeVoice())
    joins = {
        "ours": assignor.metadata({"t"}),
        "theirs-1": ConsumerProtocolMemberMetadata(0, ["t"], b"something else"),
    }
    with caplog.at_level(logging.WARNING):
        told = assignor.assign(FakeCluster({"t": 2}), joins)
    assert len(told["ours"].partitions()) == 2
    assert not told["theirs-1"].partitions()
    assert ["theirs-1" in record.getMessage() for record in caplog.records] == [True]


@given(
    hostile=st.one_of(
        st.none(),
        st.binary(max_size=40),
        st.binary(max_size=40).map(lambda tail: b"pc\x01C" + tail),
        st.builds(
            encode_claim,
            st.builds(
                Claim,
                process=st.sampled_from("pq"),
                sequence=st.integers(0, 2**62),
                generation=st.integers(-1, 2**62),
                leaving=st.booleans(),
                partitions=st.frozensets(
                    st.builds(TopicPartition, st.sampled_from("tu"), st.integers(0, 2**31 - 1))
                ),
            ),
        ),
    )
)
def test_no_member_can_stop_the_leader(hostile: bytes | None) -> None:
    assignor = make_assignor("cooperative", FakeVoice())
    joins = {
        "ours": assignor.metadata({"t"}),
        "theirs": ConsumerProtocolMemberMetadata(0, ["t"], hostile),
    }
    logging.disable(logging.WARNING)
    try:
        told = assignor.assign(FakeCluster({"t": 2}), joins)
    finally:
        logging.disable(logging.NOTSET)
    for share in told.values():
        sent(share)


@pytest.mark.parametrize("data", [None, b"", b"pc\x02R\x00", b"junk"])
def test_an_assignment_that_cannot_be_read_releases_nothing(
    data: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """aiokafka would end the whole consumer if it raised."""
    voice = FakeVoice()
    assignor = make_assignor("cooperative", voice)
    with caplog.at_level(logging.WARNING):
        assignor.on_assignment(ConsumerProtocolMemberAssignment(0, [("t", [0])], data))
    assert voice.asked == [frozenset()]
    assert "cannot be read" in caplog.text


def test_an_assignment_without_a_release_is_told_too() -> None:
    voice = FakeVoice()
    assignor = make_assignor("cooperative", voice)
    assignor.on_assignment(ConsumerProtocolMemberAssignment(0, [], encode_release(())))
    assert voice.asked == [frozenset()]
