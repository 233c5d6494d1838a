"""Answers to fetches: both halves read those that are plain as aiokafka does, and no others."""

from __future__ import annotations

import struct
import sys
from typing import Any, NamedTuple

import pytest
from aiokafka.protocol.fetch import FetchResponse_v11
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.broker.kafka.fetched import NAME, NOT_UTF8, batch
from tests.core.halves import HALVES, core_function
from tests.mutant import mutant

both_halves = pytest.mark.parametrize("half", HALVES)
LENGTH = 8
"""Where the length of a batch stands."""
BATCHES = [batch(3), batch(3, 4) + batch(5), batch(7) + batch(8, 9)[:-1], batch(7) + b"x" * 20]
"""Records that begin with a whole batch."""


def with_length(length: int, size: int) -> bytes:
    """The beginning of a batch that says it is that long, ``size`` bytes of it."""
    data = bytearray(batch(5, 6))
    struct.pack_into(">i", data, LENGTH, length)
    return bytes(data[:size])


class Partition(NamedTuple):
    """What an answer says of it, in the order of Kafka."""

    number: int
    error: int
    end: int
    stable: int
    start: int
    aborted: list[tuple[int, int]] | None
    preferred: int
    records: bytes | None


ODD: dict[str, dict[str, Any]] = {
    "an error": {"error": 1},
    "an error of which nobody knows": {"error": -1},
    "aborted transactions": {"aborted": [(5, 2)]},
    "more aborted transactions": {"aborted": [(5, 2), (6, 3)]},
    # Whoever passes over none of them takes the first number for the size of the records.
    "aborted transactions like records": {
        "aborted": [(16 + len(BATCHES[0]), 2)],
        "preferred": 5,
        "records": BATCHES[0],
    },
    "one byte": {"records": b"x"},
    "less than the head of a batch": {"records": with_length(40, 60)},
    "less than the head of a batch, to its end": {"records": with_length(48, 60)},
    "a batch that is cut off": {"records": batch(3)[:-1]},
    "a batch that is cut off by far": {"records": batch(3, 4, 5, 6)[:61]},
    "a batch that is as long as can be": {"records": with_length(2**31 - 1, 70)},
    "a batch of no length": {"records": with_length(0, 70)},
    "a batch of a length below 0": {"records": with_length(-1, 70)},
}
"""What of a partition is not plain: the fields that make it so."""


class Case(NamedTuple):
    topics: list[tuple[str, list[Partition]]] | None
    correlation: int = 7
    throttle: int = 0
    error: int = 0
    session: int = 0

    def encoded(self) -> bytes:
        answer = FetchResponse_v11(self.throttle, self.error, self.session, self.topics)
        encoded: bytes = answer.encode()
        return struct.pack(">i", self.correlation) + encoded

    def expected(self) -> list[tuple[Any, ...]] | None:
        """Of each partition: topic, number, end, stable end, records."""
        found: list[tuple[Any, ...]] = []
        for topic, partitions in self.topics or ():
            for each in partitions:
                if each.error or each.aborted or (each.records and each.records not in BATCHES):
                    return None
                found.append((topic, each.number, each.end, each.stable, each.records or b""))
        return None if self.error else found

    def check(self, half: str) -> None:
        frame, expected = self.encoded(), self.expected()
        assert read(half, frame) == expected
        if expected is not None:
            assert read(half, frame) == read_by_aiokafka(frame)


def read(half: str, frame: bytes) -> list[tuple[Any, ...]] | None:
    """What a half reads, with the bytes of the records themselves."""
    answer = core_function(half, "read_answer")(frame)
    if answer is None:
        return None
    assert type(answer) is list
    assert all(type(each) is tuple for each in answer)
    for *_, at, size in answer:
        assert 0 <= at <= at + size <= len(frame)
    return [(*each, frame[at : at + size]) for *each, at, size in answer]


def read_by_aiokafka(frame: bytes) -> list[tuple[Any, ...]]:
    return [
        (topic, number, end, stable, records or b"")
        for topic, partitions in FetchResponse_v11.decode(frame[4:]).topics or ()
        for number, _, end, stable, _, _, _, records in partitions
    ]


PLAIN = Partition(2, 0, 90, 80, 3, None, -1, BATCHES[0])
NUMBERS, OFFSETS = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
PLAIN_PARTITIONS = st.builds(
    Partition,
    number=NUMBERS,
    error=st.just(0),
    end=OFFSETS,
    stable=OFFSETS,
    start=OFFSETS,
    aborted=st.sampled_from([None, []]),
    preferred=NUMBERS,
    records=st.sampled_from([None, b"", *BATCHES]),
)
PARTITIONS = st.builds(
    lambda partition, odd: partition._replace(**odd),
    PLAIN_PARTITIONS,
    st.sampled_from([False] * 19 + [True]).flatmap(
        lambda odd: st.sampled_from([*ODD.values()]) if odd else st.just({})
    ),
)
CASES = st.builds(
    Case,
    topics=st.one_of(
        st.none(),
        st.lists(
            st.tuples(st.text(max_size=9), st.lists(PARTITIONS, max_size=3)), min_size=1, max_size=3
        ),
    ),
    correlation=NUMBERS,
    throttle=NUMBERS,
    error=st.sampled_from([0] * 19 + [3]),
    session=NUMBERS,
)


@both_halves
@given(case=CASES)
def test_it_reads_what_aiokafka_reads(half: str, case: Case) -> None:
    case.check(half)


@both_halves
def test_it_tells_where_records_are(half: str) -> None:
    rows = [PLAIN, PLAIN._replace(number=1, records=b""), PLAIN._replace(number=0, records=None)]
    case = Case([("orders", rows), ("ä", [PLAIN])])
    size = len(BATCHES[0])
    first = 18 + 2 + 6 + 4 + 42
    second = first + size + 42
    third = second + 42
    assert core_function(half, "read_answer")(case.encoded()) == [
        ("orders", 2, 90, 80, first, size),
        ("orders", 1, 90, 80, second, 0),
        ("orders", 0, 90, 80, third, 0),
        ("ä", 2, 90, 80, third + 2 + 2 + 4 + 42, size),
    ]


@both_halves
@pytest.mark.parametrize("topics", [None, [], [("orders", [])], [("", None), ("b", [])]])
def test_it_may_tell_of_nothing(half: str, topics: Any) -> None:
    assert read(half, Case(topics).encoded()) == []


@both_halves
@pytest.mark.parametrize("kind", ODD)
def test_what_is_not_plain_is_not_read(half: str, kind: str) -> None:
    """Wherever it stands."""
    odd = PLAIN._replace(**ODD[kind])
    for partitions in [odd], [PLAIN, odd], [odd, PLAIN]:
        for topics in [("a", partitions)], [("a", [PLAIN]), ("b", partitions), ("c", [PLAIN])]:
            assert read(half, Case(topics).encoded()) is None


@both_halves
@pytest.mark.parametrize("error", [1, 70, -1, 2**15 - 1])
def test_an_answer_with_an_error_is_not_read(half: str, error: int) -> None:
    for topics in None, [("orders", [PLAIN])]:
        assert read(half, Case(topics, error=error).encoded()) is None


@both_halves
def test_a_topic_has_a_name_in_utf8(half: str) -> None:
    name = NAME.decode()
    frame = Case([("a", [PLAIN]), (name, [PLAIN])]).encoded()
    assert read(half, frame) is not None
    assert read(half, frame.replace(NAME, NOT_UTF8)) is None
    nameless: Any = None
    assert read(half, Case([(nameless, [PLAIN])]).encoded()) is None
    # From a byte too early on, it would be an answer.
    assert read(half, bytes(14) + struct.pack(">ih", 1, -1) + bytes(3)) is None


@both_halves
@pytest.mark.parametrize("topics", [None, [("ä", [PLAIN, PLAIN]), ("b", []), ("c", [PLAIN])]])
def test_it_is_read_as_a_whole(half: str, topics: Any) -> None:
    frame = Case(topics).encoded()
    assert read(half, frame) is not None
    for size in range(len(frame)):
        assert read(half, frame[:size]) is None
    for more in b"\0", b"\0" * 50, b"x":
        assert read(half, frame + more) is None


CHANGES = st.lists(st.tuples(st.integers(0, 10**5), st.integers(1, 255)), max_size=3)
EDGES = [number.to_bytes(4, "big", signed=True) for number in (0, 1, 2, -1, 2**31 - 1, -(2**31))]
SCRAPS = st.one_of(st.sampled_from([*EDGES, b"\0\1a", b"\0\1\xff"]), st.binary(max_size=9))
FRAMES = st.one_of(
    CASES.map(Case.encoded),
    CASES.map(Case.encoded),
    st.lists(SCRAPS).map(lambda scraps: bytes(14) + b"".join(scraps)),
    st.binary(max_size=100),
)


@given(FRAMES, CHANGES, st.one_of(st.just(0), st.integers(0, 100)))
@settings(max_examples=max(400, settings().max_examples))
def test_both_halves_make_the_same_of_anything(
    frame: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    """And what they read is what aiokafka reads."""
    data = bytearray(frame[: max(0, len(frame) - cut)])
    for at, change in changes:
        if data:
            data[at % len(data)] ^= change
    frame = bytes(data)
    compiled, pure = (core_function(half, "read_answer")(frame) for half in HALVES)
    assert compiled == pure
    if compiled is not None:
        assert read("cython", frame) == read_by_aiokafka(frame)


@both_halves
def test_what_is_no_answer_is_refused(half: str) -> None:
    with pytest.raises(TypeError):
        core_function(half, "read_answer")("text")


# -- the tests themselves -------------------------------------------------------------------------

MUTANTS = {
    "an answer with an error is plain": (
        "    if error:\n        raise _OddError\n    at =",
        "    at =",
    ),
    "a partition with an error is plain": ("if error or aborted > 0:", "if aborted > 0:"),
    "a partition with aborted transactions is plain": ("if error or aborted > 0:", "if error:"),
    "no list of aborted transactions is odd": ("aborted > 0:", "aborted:"),
    "a batch that is cut off is whole": (
        "if not 0 < batch <= length - _BEFORE_LENGTH:",
        "if not 0 < batch:",
    ),
    "a batch that is cut off a little is whole": (
        "<= length - _BEFORE_LENGTH",
        "<= length - _BEFORE_LENGTH + 1",
    ),
    "a batch may have no length": ("if not 0 < batch", "if not 0 <= batch"),
    "all records have the head of a batch": (
        "                if length < _BATCH.size:\n                    raise _OddError\n",
        "",
    ),
    "no records are less than none": (
        "length = max(0, _RECORDS.unpack_from(frame, at)[1])",
        "length = _RECORDS.unpack_from(frame, at)[1]",
    ),
    "the highest offset is that which may be read": (
        "number, error, end, stable, _, aborted",
        "number, error, end, _, stable, aborted",
    ),
    "there may be bytes too much": ("    if at != len(frame):\n        raise _OddError\n", ""),
    "a name that is not UTF-8 is a fault": (
        "(struct.error, UnicodeDecodeError, _OddError)",
        "(struct.error, _OddError)",
    ),
    "an answer that is cut off is a fault": (
        "(struct.error, UnicodeDecodeError, _OddError)",
        "(UnicodeDecodeError, _OddError)",
    ),
    "a topic may have no name": ("if length < 0 or at + length > len(frame):", "if False:"),
}


@pytest.mark.parametrize("name", ["", *MUTANTS])
def test_a_mutant_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is none: what a mutant shows, it shows because of its change."""
    old, new = MUTANTS.get(name, ("class _Reading", "class _Reading"))
    monkeypatch.setitem(
        sys.modules, "prosody._core.fetched_py", mutant("_core.fetched_py", old, new)
    )

    @settings(max_examples=200, derandomize=True, database=None, phases=[Phase.generate])
    @given(CASES)
    def check(case: Case) -> None:
        case.check("python")

    found = False
    try:
        for kind in ODD:
            test_what_is_not_plain_is_not_read("python", kind)
        test_a_topic_has_a_name_in_utf8("python")
        test_it_is_read_as_a_whole("python", [("orders", [PLAIN])])
        check()
    except Exception:  # a mutant fails as it likes
        found = True
    assert found is bool(name)
