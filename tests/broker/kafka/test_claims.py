"""The bytes members exchange: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prosody.broker.kafka.claims import (
    Claim,
    ForeignMemberError,
    decode_claim,
    decode_release,
    encode_claim,
    encode_release,
)
from prosody.broker.protocol import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable

PROCESS = "0b6ed6d7-2ea5-4f4c-8c39-0a3a2f3d0f65"

names = st.text(st.characters(codec="utf-8"), max_size=12)
numbers = st.one_of(st.integers(0, 300), st.integers(0, 2**31 - 1))
partition_sets = st.frozensets(st.builds(TopicPartition, names, numbers), max_size=40)
claims = st.builds(
    Claim,
    process=names,
    sequence=st.integers(0, 2**63 - 1),
    generation=st.integers(-1, 2**31 - 1),
    leaving=st.booleans(),
    partitions=partition_sets,
)
SAMPLE = Claim(
    PROCESS, 300, 7, True, frozenset({TopicPartition("a", 0), TopicPartition("bü", 2**31 - 1)})
)


@given(claim=claims)
def test_a_claim_comes_out_as_it_went_in(claim: Claim) -> None:
    found = decode_claim(encode_claim(claim))
    assert found == claim
    assert all(type(tp) is TopicPartition for tp in found.partitions)


@given(partitions=partition_sets)
def test_a_release_comes_out_as_it_went_in(partitions: frozenset[TopicPartition]) -> None:
    assert decode_release(encode_release(partitions)) == partitions


@given(claim=claims)
def test_equal_claims_are_equal_bytes(claim: Claim) -> None:
    again = claim._replace(partitions=frozenset(sorted(claim.partitions, reverse=True)))
    assert encode_claim(again) == encode_claim(claim)


def test_the_format_does_not_change_unnoticed() -> None:
    """Members of one version read each other, whatever release they are: a change is a new version."""
    small = Claim("p", 300, 7, True, frozenset({TopicPartition("t", 1), TopicPartition("t", 200)}))
    assert encode_claim(small).hex() == "7063 01 43 0170 ac02 08 01 01 0174 02 01 c601".replace(
        " ", ""
    )
    assert encode_release(small.partitions).hex() == "7063 01 52 01 0174 02 01 c601".replace(
        " ", ""
    )


@pytest.mark.parametrize("numbers", [range(200), range(0, 400, 2), range(1800, 2000)])
def test_two_hundred_partitions_are_less_than_a_kilobyte(numbers: range) -> None:
    partitions = frozenset(TopicPartition("orders-of-the-shop", n) for n in numbers)
    assert len(encode_claim(Claim(PROCESS, 10**6, 10**6, False, partitions))) < 300
    assert len(encode_release(partitions)) < 300


READERS = pytest.mark.parametrize("decode", [decode_claim, decode_release])


@READERS
@pytest.mark.parametrize(
    "data", [None, b"", b"p", b"pc", b"pc\x01", b'[-1, [["t", 0]]]', b"\0" * 99]
)
def test_what_is_not_ours_is_foreign(
    decode: Callable[[bytes | None], object], data: bytes | None
) -> None:
    with pytest.raises(ForeignMemberError):
        decode(data)


def test_a_claim_is_no_release() -> None:
    with pytest.raises(ForeignMemberError, match="kind"):
        decode_release(encode_claim(SAMPLE))
    with pytest.raises(ForeignMemberError, match="kind"):
        decode_claim(encode_release(SAMPLE.partitions))


def test_another_version_is_foreign() -> None:
    data = bytearray(encode_claim(SAMPLE))
    data[2] = 2
    with pytest.raises(ForeignMemberError, match="version"):
        decode_claim(bytes(data))


def test_every_beginning_and_every_tail_is_foreign() -> None:
    data = encode_claim(SAMPLE)
    for cut in range(len(data)):
        with pytest.raises(ForeignMemberError):
            decode_claim(data[:cut])
    with pytest.raises(ForeignMemberError, match="more than"):
        decode_claim(data + b"\0")


HEAD = bytes.fromhex("7063 01 52".replace(" ", ""))


@pytest.mark.parametrize(
    ("tail", "why"),
    [
        ("01 0174 01 ffffffff 08", "no partition number"),  # 2**31
        ("01 0174 02 feffffff 07 01", "no partition number"),
        ("02 0174 01 00 0174 01 01", "a topic twice"),
        ("01 01ff 01 00", "not UTF-8"),
        ("ffffffffffffffffff 01", "a number without an end"),
        ("ffffffffffffffff 7f", "cut off"),
        ("01 ffffffffffffffff7f", "cut off in a text"),
        ("01 0174 ffffffffffffffff7f 00", "cut off in a number"),
    ],
)
def test_numbers_and_names_are_checked(tail: str, why: str) -> None:
    with pytest.raises(ForeignMemberError, match=why):
        decode_release(HEAD + bytes.fromhex(tail.replace(" ", "")))


def test_unknown_flags_are_foreign() -> None:
    data = bytearray(encode_claim(Claim("p", 1, 1, True, frozenset())))
    data[-2] = 3
    with pytest.raises(ForeignMemberError, match="flags"):
        decode_claim(bytes(data))


@READERS
@given(data=st.binary(max_size=60))
def test_any_bytes_are_read_or_foreign(
    decode: Callable[[bytes | None], object], data: bytes
) -> None:
    for begin in (b"", b"pc\x01C", b"pc\x01R"):
        with contextlib.suppress(ForeignMemberError):
            decode(begin + data)


@given(claim=claims, at=st.integers(0), byte=st.integers(0, 255))
@settings(max_examples=300)
def test_a_damaged_claim_is_read_or_foreign(claim: Claim, at: int, byte: int) -> None:
    data = bytearray(encode_claim(claim))
    data[at % len(data)] = byte
    try:
        found = decode_claim(bytes(data))
    except ForeignMemberError:
        return  # The one error there may be.
    # What is read could be assigned.
    assert all(0 <= tp.partition < 2**31 for tp in found.partitions)


def test_what_has_no_form_is_refused_when_written() -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        encode_claim(SAMPLE._replace(sequence=-1))
