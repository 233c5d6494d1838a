"""What members of the cooperative assignor tell each other, and its form on the wire.

A :class:`Claim` travels from each member to the leader with its join, a *release* from the leader to each
member with its assignment. Both are bytes to Kafka::

    claim    magic  version  "C"  process  sequence  generation + 1  flags  topics
    release  magic  version  "R"  topics

A text is its length and its UTF-8. A number is written in groups of seven bits, the lowest first, the
eighth bit saying that another follows. Topics are counted; each is its name, the number of its partitions,
and these in rising order, each as its distance from the one before: a byte or two for a partition.
"""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple, Protocol

from prosody.broker.protocol import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAGIC = b"pc"
_VERSION = 1
_CLAIM = b"C"
_RELEASE = b"R"
_LEAVING = 1

_PARTITION_MAX = 2**31 - 1
"""Kafka counts partitions in 32 bits; a greater number could not be assigned."""
_NUMBER_BITS = 63


class ForeignMemberError(ValueError):
    """The bytes are none of this format: the member is of another kind or version."""


class Claim(NamedTuple):
    """What a member says of itself as it joins."""

    process: str
    """Identity of the consumer object, the same for all its memberships."""
    sequence: int
    """Raised at each join of that process: of two members the higher one lives, the other is a ghost."""
    generation: int
    """The last generation in which ``partitions`` were confirmed; -1 for none."""
    leaving: bool
    """Whether it is about to stop, and is given nothing new."""
    partitions: frozenset[TopicPartition]
    """What it still holds."""


class Voice(Protocol):
    """Speaks for a member and hears for it. Its methods do not raise."""

    def claim(self) -> Claim:
        """What the member holds; asked for once in each join."""
        ...

    def asked_to_release(self, partitions: frozenset[TopicPartition]) -> None:
        """Told with each assignment, also when there is nothing to release."""
        ...


def encode_claim(claim: Claim) -> bytes:
    """The claim as bytes; about one for each partition, and 50 more."""
    out = bytearray(_MAGIC + bytes((_VERSION,)) + _CLAIM)
    _put_text(out, claim.process)
    _put_number(out, claim.sequence)
    _put_number(out, claim.generation + 1)
    _put_number(out, _LEAVING if claim.leaving else 0)
    _put_partitions(out, claim.partitions)
    return bytes(out)


def decode_claim(data: bytes | None) -> Claim:
    """The claim a member sent.

    :raises ForeignMemberError: for anything that :func:`encode_claim` did not make, nothing else.
    """
    reader = _Reader(data, _CLAIM)
    process = reader.text()
    sequence = reader.number()
    generation = reader.number() - 1
    flags = reader.number()
    if flags not in (0, _LEAVING):
        raise ForeignMemberError(f"unknown flags {flags}")
    partitions = reader.partitions()
    reader.end()
    return Claim(process, sequence, generation, flags == _LEAVING, partitions)


def encode_release(partitions: Iterable[TopicPartition]) -> bytes:
    """What a member is to release, as bytes."""
    out = bytearray(_MAGIC + bytes((_VERSION,)) + _RELEASE)
    _put_partitions(out, partitions)
    return bytes(out)


def decode_release(data: bytes | None) -> frozenset[TopicPartition]:
    """What the leader wants released.

    :raises ForeignMemberError: for anything that :func:`encode_release` did not make, nothing else.
    """
    reader = _Reader(data, _RELEASE)
    partitions = reader.partitions()
    reader.end()
    return partitions


def _put_number(out: bytearray, number: int) -> None:
    if not 0 <= number < 1 << _NUMBER_BITS:
        raise ValueError(f"cannot be written: {number}")
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _put_text(out: bytearray, text: str) -> None:
    data = text.encode()
    _put_number(out, len(data))
    out += data


def _put_partitions(out: bytearray, partitions: Iterable[TopicPartition]) -> None:
    topics = [(topic, list(tps)) for topic, tps in groupby(sorted(partitions), attrgetter("topic"))]
    _put_number(out, len(topics))
    for topic, tps in topics:
        _put_text(out, topic)
        _put_number(out, len(tps))
        last = -1
        for tp in tps:
            _put_number(out, tp.partition - last - 1)
            last = tp.partition


class _Reader:
    """Reads what the functions above wrote; whatever it cannot read is foreign.

    Every count is of things that take a byte at least, so no short text can ask for much memory.
    """

    def __init__(self, data: bytes | None, kind: bytes) -> None:
        begin = _MAGIC + bytes((_VERSION,)) + kind
        if not data or data[:2] != _MAGIC:
            raise ForeignMemberError("not the format of this library")
        if data[: len(begin)] != begin:
            raise ForeignMemberError(f"version or kind {data[2:4]!r} instead of {begin[2:]!r}")
        self._data = data
        self._at = len(begin)

    def number(self) -> int:
        number = 0
        for shift in range(0, _NUMBER_BITS, 7):
            if self._at >= len(self._data):
                raise ForeignMemberError("cut off in a number")
            byte = self._data[self._at]
            self._at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
        raise ForeignMemberError("a number without an end")

    def text(self) -> str:
        length = self.number()
        data = self._data[self._at : self._at + length]
        if len(data) < length:
            raise ForeignMemberError("cut off in a text")
        self._at += length
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise ForeignMemberError("a text that is not UTF-8") from error

    def partitions(self) -> frozenset[TopicPartition]:
        found: set[TopicPartition] = set()
        topics: set[str] = set()
        for _ in range(self.number()):
            topic = self.text()
            if topic in topics:
                raise ForeignMemberError("a topic twice")
            topics.add(topic)
            partition = -1
            for _ in range(self.number()):
                partition += self.number() + 1
                if partition > _PARTITION_MAX:
                    raise ForeignMemberError(f"no partition number: {partition}")
                found.add(TopicPartition(topic, partition))
        return frozenset(found)

    def end(self) -> None:
        if self._at != len(self._data):
            raise ForeignMemberError("more than there should be")
