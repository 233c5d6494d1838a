"""Records of a fetch: both halves read what aiokafka reads, and nothing of what is not plain."""

from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c, decode_varint, encode_varint
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from prosody.broker.protocol import TopicPartition
from tests.broker.kafka.fetched import batch, misnamed
from tests.core.halves import HALVES, core_function
from tests.mutant import mutant

if TYPE_CHECKING:
    from collections.abc import Callable

    Found = tuple[list[tuple[Any, ...]], int]

PLACE = TopicPartition("orders", 2)
FIELDS = ("topic", "partition", "offset", "timestamp", "key", "value", "headers")
HEAD = struct.Struct(">qiibIhiqqqhii")
"""Base offset, length, epoch, version, CRC, attributes, last offset, first time, highest time, producer,
its epoch, sequence, number of records."""
BEFORE_LENGTH, VERSION, CRC, ATTRIBUTES, LAST, MAX_TIME = 12, 16, 17, 21, 23, 35
LOG_APPEND_TIME = 0x08
BEFORE, BEHIND = b"\x02" * 77, b"\x02" * 500
"""What stands around the batches: whoever reads beyond finds numbers that would do."""
MANY = max(400, settings().max_examples)
both_halves = pytest.mark.parametrize("half", HALVES)


def sealed(data: bytearray) -> bytes:
    """With the length and the CRC that it should have."""
    struct.pack_into(">i", data, 8, len(data) - BEFORE_LENGTH)
    struct.pack_into(">I", data, CRC, calc_crc32c(bytes(data[ATTRIBUTES:])))
    return bytes(data)


class Row(NamedTuple):
    """A record, and how many offsets before it were compacted away."""

    gap: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


ROW = Row(0, 5, b"k", b"v", [])


class Batch(NamedTuple):
    """Records; ``tail`` offsets were compacted away behind them, and ``gap`` before the batch.

    With ``appended``, that is the time at which the broker wrote it.
    """

    gap: int
    rows: list[Row]
    tail: int
    appended: int | None
    is_transactional: bool

    def built(self, base: int) -> bytes:
        builder = DefaultRecordBatchBuilder(
            magic=2, compression_type=0, is_transactional=self.is_transactional, producer_id=5,
            producer_epoch=1, base_sequence=3, batch_size=10**6,
        )  # fmt: skip
        offset = -1
        for gap, *fields in self.rows:
            offset += 1 + gap
            assert builder.append(offset, *fields) is not None
        data = builder.build()
        struct.pack_into(">q", data, 0, base)
        struct.pack_into(">i", data, LAST, max(0, offset + self.tail))
        if self.appended is not None:
            data[ATTRIBUTES + 1] |= LOG_APPEND_TIME
            struct.pack_into(">q", data, MAX_TIME, self.appended)
        return sealed(data)


# -- what is not plain ----------------------------------------------------------------------------


def legacy(base: int) -> bytes:
    builder = LegacyRecordBatchBuilder(magic=1, compression_type=0, batch_size=10**6)
    assert builder.append(0, 5, b"k", b"v" * 40) is not None
    return struct.pack(">q", base) + bytes(builder.build())[8:]


def compressed(base: int) -> bytes:
    data = batch(*range(base, base + 20), codec=1)
    assert data[ATTRIBUTES + 1] == 1
    return data


def damaged(base: int) -> bytes:
    """A batch that could be read but for its CRC."""
    data = bytearray(batch(base, base + 1))
    data[CRC] ^= 1
    return bytes(data)


def added(at: int, number: int, row: Row = ROW) -> Callable[[int], bytes]:
    """Three such records with one byte changed, and the CRC that belongs to it."""

    def make(base: int) -> bytes:
        data = bytearray(Batch(0, [row] * 3, 0, None, False).built(base))
        data[at] = (data[at] + number) % 256
        # Its length is as it was.
        struct.pack_into(">I", data, CRC, calc_crc32c(bytes(data[ATTRIBUTES:])))
        return bytes(data)

    return make


ODD: dict[str, Callable[[int], bytes]] = {
    "compressed": compressed,
    "compressed by whom nobody knows": added(ATTRIBUTES + 1, 7),
    "a marker": added(ATTRIBUTES + 1, 0x20),
    "version 1": legacy,
    "version 3": added(VERSION, 1),
    "a CRC that is wrong": damaged,
    "a header with a name that is not UTF-8": misnamed,
    "one record more than it says": added(60, -1),
    "one record less than it says": added(60, 1),
    "a byte too much": lambda base: sealed(bytearray(batch(base, base + 1) + b"\0")),
    "a record longer than it says": added(61, -2),
    "a record shorter than it says": added(61, 2),
    "a record without a size": lambda base: sealed(bytearray(batch(base)[:61] + b"\1" + b"\0" * 6)),
    "a record of no bytes": lambda base: sealed(bytearray(batch(base)[:61] + b"\0" * 7)),
    "a record behind the last one": added(LAST + 3, -1),
    "a record before the first one": added(64, 1),
    "a key longer than its record": added(65, 100),
    "a key of a size below -1": added(65, 2, ROW._replace(key=None)),
    "a header without a name": added(-2, 1, ROW._replace(headers=[("", None)])),
    "a number of headers below 0": added(-1, 1),
    "a header that is not there": added(-1, 2),
    "a last offset below the first": added(LAST, 0x80),
    "offsets below 0": added(0, 0x80),
    "offsets too high": added(0, 0x40),
    "times too high": added(27, 0x40),
    "times too low": added(27, 0x80),
}
"""By what is odd: makes such a batch with a base offset."""


# -- what is asked, and the answer that is right --------------------------------------------------


def read(
    half: str,
    data: bytes,
    offset: int,
    most: int = 1000,
    crc: Callable[[Any], int] = calc_crc32c,
    around: tuple[bytes, bytes] = (BEFORE, BEHIND),
) -> Found | None:
    """What a half reads of batches that stand in a longer frame."""
    before, behind = around
    frame = before + data + behind
    answer = core_function(half, "read_records")(
        frame, len(before), len(data), PLACE, offset, most, crc
    )
    if answer is None:
        return None
    records, reached = answer
    assert type(records) is list
    kind = core_function(half, "FetchedRecord")
    assert all(type(record) is kind for record in records)
    return [tuple(getattr(record, name) for name in FIELDS) for record in records], reached


def read_by_aiokafka(data: bytes, offset: int, check_crcs: bool = True) -> Found:
    records = PartitionRecords(
        PLACE, MemoryRecords(data), None, offset, None, None, check_crcs, READ_COMMITTED
    )
    found = [tuple(getattr(record, name) for name in FIELDS) for record in records]
    return found, records.next_fetch_offset


class Case(NamedTuple):
    base: int
    batches: list[Batch | str]
    """Some are odd, by name."""
    offset: int
    """From where on, counted from a little before the first offset, as far as there are any."""
    cut: int
    """Bytes that are cut off."""
    room: int
    """How many more records may be read than there are."""

    def built(self) -> list[bytes]:
        base, built = self.base, []
        for each in self.batches:
            if isinstance(each, str):
                built.append(ODD[each](base))
                base += 20
            else:
                base += each.gap
                data = each.built(base)
                built.append(data)
                base += HEAD.unpack_from(data)[6] + 1
        return built

    def data(self) -> bytes:
        data = b"".join(self.built())
        return data[: len(data) - self.cut % (len(data) + 1)]

    def whole(self) -> list[tuple[Batch | str, bytes]]:
        """Those batches that are not cut off."""
        size, whole = len(self.data()), []
        for each, built in zip(self.batches, self.built(), strict=True):
            size -= len(built)
            if size >= 0:
                whole.append((each, built))
        return whole

    def check(self, half: str) -> None:
        """The answer is aiokafka's, or None where something of what is whole is not plain."""
        data, whole = self.data(), self.whole()
        plain = [(each, built) for each, built in whole if isinstance(each, Batch)]
        ends = [HEAD.unpack_from(built)[0] + HEAD.unpack_from(built)[6] + 1 for _, built in plain]
        first = max(0, self.base - 2)
        offset = first + self.offset % (max([self.base, *ends]) + 3 - first)
        most = max(0, sum(len(each.rows) for each, _ in plain) + self.room)
        answer = read(half, data, offset, most)
        kept = 0
        for each, _ in whole:
            if not isinstance(each, Batch) or kept + len(each.rows) > most:
                assert answer is None
                return
            kept += len(each.rows)
        found, reached = read_by_aiokafka(data, 0)
        assert answer == ([row for row in found if row[2] >= offset], max(offset, reached))
        if not ends or offset <= ends[0]:
            # What a broker answers with begins there. aiokafka goes back where it is asked for more.
            assert answer == read_by_aiokafka(data, offset)


KEYS = st.one_of(st.none(), st.binary(max_size=5), st.sampled_from([b"k" * 63, b"k" * 64]))
VALUES = st.one_of(KEYS, st.sampled_from([b"v" * 8191, b"v" * 8192]))
TIMES = st.one_of(st.integers(-1, 2**61), st.integers(1_700_000_000_000, 1_700_000_000_200))
ROWS = st.builds(
    Row,
    gap=st.sampled_from([0, 0, 0, 1, 70]),
    timestamp=TIMES,
    key=KEYS,
    value=VALUES,
    headers=st.lists(st.tuples(st.text(max_size=4), KEYS), max_size=3),
)
BATCHES = st.builds(
    Batch,
    gap=st.sampled_from([0, 0, 0, 1, 2**40]),
    rows=st.lists(ROWS, max_size=4),
    tail=st.sampled_from([0, 0, 1, 3]),
    appended=st.one_of(st.none(), st.none(), TIMES),
    is_transactional=st.booleans(),
)
ODD_NAMES = st.sampled_from([*ODD])
CASES = st.builds(
    Case,
    base=st.one_of(st.integers(0, 100), st.integers(0, 2**61)),
    batches=st.lists(
        st.sampled_from([False] * 9 + [True]).flatmap(lambda odd: ODD_NAMES if odd else BATCHES),
        min_size=1,
        max_size=4,
    ),
    offset=st.one_of(st.integers(0, 10), st.integers(0, 2**61)),
    cut=st.one_of(st.just(0), st.just(0), st.integers(0, 200)),
    room=st.sampled_from([0, 0, 0, 5, 1000, -1]),
)


@both_halves
@given(case=CASES)
def test_it_reads_what_aiokafka_reads(half: str, case: Case) -> None:
    case.check(half)


@both_halves
@pytest.mark.parametrize("kind", ODD)
def test_what_is_not_plain_is_not_read(half: str, kind: str) -> None:
    """Wherever it stands, and from whatever offset; only what is cut off is not looked at."""
    odd, plain = ODD[kind](7), batch(3, 4)
    for data in odd, plain + odd, odd + batch(40), plain + odd + batch(40):
        for offset in 0, 3, 8, 100:
            assert read(half, data, offset) is None
    answer = read(half, plain + odd[:-1], 3)
    assert answer == read(half, plain, 3)
    assert answer is not None
    assert [row[2] for row in answer[0]] == [3, 4]


@pytest.mark.parametrize("kind", ["a CRC that is wrong", "a record longer than it says"])
def test_who_reads_with_more_care_tells(kind: str) -> None:
    with pytest.raises(CorruptRecordException):
        read_by_aiokafka(ODD[kind](7), 7)


@both_halves
@pytest.mark.parametrize("appended", [-1, 0, 2**62, 2**63 - 1])
def test_the_time_of_the_broker_is_that_of_all_records(half: str, appended: int) -> None:
    rows = [Row(0, time, b"k", b"v", []) for time in (9, 5)]
    for is_transactional in False, True:
        data = Batch(0, rows, 0, appended, is_transactional).built(3)
        answer = read(half, data, 0)
        assert answer == read_by_aiokafka(data, 0)
        assert answer is not None
        assert [row[3] for row in answer[0]] == [appended] * 2


@both_halves
def test_as_many_as_are_allowed_are_read(half: str) -> None:
    """Those that are below the offset count as well: they have to be read."""
    data = batch(3, 4) + batch(5)
    for offset in 3, 4, 5:
        assert read(half, data, offset, most=2) is None
        assert read(half, data, offset, most=3) == read_by_aiokafka(data, offset)
    # What is cut off does not count.
    assert read(half, data[:-1], 3, most=2) == read_by_aiokafka(data[:-1], 3)


@both_halves
def test_the_last_batch_may_be_cut_off_anywhere(half: str) -> None:
    whole, other = batch(3, 4), batch(5, 6)
    expected = read_by_aiokafka(whole, 4)
    for size in range(len(other)):
        assert read(half, whole + other[:size], 4) == expected
        assert read(half, other[:size], 4) == ([], 4)


@both_halves
def test_records_from_the_offset_on_are_read(half: str) -> None:
    """The offset does not go back, even where all is below; and goes beyond what is compacted away."""
    rows = [ROW._replace(gap=2), ROW._replace(gap=2)]
    data = Batch(0, rows, 3, None, False).built(10)  # 12 and 15, until 18
    for offset, offsets in (0, [12, 15]), (12, [12, 15]), (13, [15]), (15, [15]), (16, []):
        answer = read(half, data, offset)
        assert answer == read_by_aiokafka(data, offset)
        assert answer is not None
        assert ([row[2] for row in answer[0]], answer[1]) == (offsets, 19)
    assert read(half, data, 40) == ([], 40)


# -- what nobody should write ---------------------------------------------------------------------


def number(value: int) -> bytes:
    out = bytearray()
    encode_varint(value, out.append)
    return bytes(out)


class Agreeing:
    """A CRC that always agrees: each batch's own, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __call__(self, view: memoryview) -> int:
        covered = self._at + ATTRIBUTES
        assert view == self._data[covered : covered + len(view)]
        found: int = HEAD.unpack_from(self._data, self._at)[4]
        self._at = covered + len(view)
        return found


EDGES = [0, 1, 2, 3, -1, -2, 63, 64, 2**31, 2**62 - 1, 2**62, -(2**62), 2**63 - 1, -(2**63)]
SCRAPS = st.one_of(
    st.sampled_from([number(edge) for edge in EDGES]),
    st.sampled_from([b"\x80" * 9 + b"\0", b"\xff" * 9 + b"\x7f", b"\xff" * 10, b"\x80\0"]),
    st.sampled_from([b"\0", b"\2a", b"\4\xc3\xa4", b"\2\xff", b"\1", b"\0\0\0\1\1\0"]),
    st.binary(max_size=3),
)


def changed(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    """With some bytes changed."""
    out = bytearray(data)
    for at, change in changes:
        if out:
            out[at % len(out)] ^= change
    return bytes(out)


def content(row: Row) -> bytes:
    """The bytes of a record behind its size and its attributes."""
    data = bytearray(Batch(0, [row], 0, None, False).built(0))
    _, at = decode_varint(data, HEAD.size)
    return bytes(data[at + 1 :])


CHANGES = st.lists(st.tuples(st.integers(0, 10**5), st.integers(1, 255)), max_size=3)
CONTENTS = st.one_of(st.builds(content, ROWS), st.lists(SCRAPS, max_size=9).map(b"".join))
# aiokafka reads the attributes as a number of many bytes, Kafka has one. No bit of it is in use.
ODD_RECORDS = st.builds(changed, CONTENTS, CHANGES).map(
    lambda data: number(len(data) + 1) + b"\0" + data
)


def headed(records: list[bytes], fields: tuple[int, ...]) -> bytes:
    """A batch of such records, as many as there are or one more or less."""
    base, version, attributes, last, time, more = fields
    body = b"".join(records)
    size = HEAD.size - BEFORE_LENGTH + len(body)
    counted = len(records) + more
    head = base, size, 0, version, 9, attributes, last, time, 8, 7, 6, 5, counted
    return HEAD.pack(*head) + body


FIELDS_OF_HEAD = st.tuples(
    st.sampled_from([0, 0, 5, 2**62 - 1, 2**62, -1]),
    st.sampled_from([2, 2, 2, 2, 2, 2, 2, 1, -2]),
    st.sampled_from([0, 0, 0, 0, 0x10, 0x08, 0x20, 0x01, -0x8000]),
    st.sampled_from([0, 3, 100, 2**31 - 1, -1]),
    st.sampled_from([0, 5, -1, 2**62 - 1, 2**62, 1 - 2**62, -(2**62)]),
    st.sampled_from([0, 0, 0, 0, 0, 0, 0, 0, 1, -1, -10]),
)
ODD_BATCHES = st.builds(headed, st.lists(ODD_RECORDS, max_size=3), FIELDS_OF_HEAD)
SPANS = st.one_of(
    CASES.map(Case.data),
    CASES.map(Case.data),
    st.lists(ODD_BATCHES, max_size=3).map(b"".join),
    st.binary(max_size=200),
)


@given(
    SPANS,
    CHANGES,
    st.one_of(st.just(0), st.integers(0, 100)),
    st.one_of(st.integers(0, 10), st.integers(0, 2**62)),
    st.sampled_from([1000, 1000, 2, 0, -1]),
    st.tuples(st.binary(max_size=20), st.one_of(st.just(b""), st.just(BEHIND), st.binary())),
)
@settings(max_examples=MANY)
def test_both_halves_make_the_same_of_anything(
    data: bytes,
    changes: list[tuple[int, int]],
    cut: int,
    offset: int,
    most: int,
    around: tuple[bytes, bytes],
) -> None:
    data = changed(data, changes)[: max(0, len(data) - cut)]
    answers = [read(half, data, offset, most, Agreeing(data), around) for half in HALVES]
    assert answers[0] == answers[1]


@given(st.lists(ODD_RECORDS, min_size=1, max_size=3))
@settings(max_examples=MANY)
def test_what_is_read_of_anything_is_what_aiokafka_reads(records: list[bytes]) -> None:
    data = headed(records, (5, 2, 0, 2**31 - 1, 9, 0))
    for half in HALVES:
        answer = read(half, data, 5, crc=Agreeing(data))
        assert answer is None or answer == read_by_aiokafka(data, 5, check_crcs=False)


@both_halves
@pytest.mark.parametrize(
    ("at", "size"),
    [
        (-1, 1), (0, -1), (0, 101), (1, 100), (101, 0), (100, 1), (5, -5), (-100, 100),
        (2**62, 2**62), (2**63 - 1, 2**63 - 1), (-(2**63), 2**63 - 1), (5, -(2**63)),
    ],
)  # fmt: skip
def test_what_is_not_within_the_frame_is_refused(half: str, at: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"read_records: {at} to .* is not within 100 bytes"):
        core_function(half, "read_records")(bytes(100), at, size, PLACE, 0, 10, calc_crc32c)


@both_halves
def test_there_may_be_nothing_to_read(half: str) -> None:
    for at in 0, 50, 100:
        answer = core_function(half, "read_records")(bytes(100), at, 0, PLACE, 7, 0, calc_crc32c)
        assert answer == ([], 7)


@both_halves
def test_a_fault_of_the_crc_is_raised(half: str) -> None:
    def fault(_: memoryview) -> int:
        raise RuntimeError("no CRC")

    with pytest.raises(RuntimeError, match="no CRC"):
        read(half, batch(3), 3, crc=fault)


@both_halves
def test_records_do_not_keep_the_answer_they_came_in(half: str) -> None:
    frame = batch(3, 4, headers=[("a", b"1")])
    before = sys.getrefcount(frame)
    answer = core_function(half, "read_records")(frame, 0, len(frame), PLACE, 3, 10, calc_crc32c)
    assert len(answer[0]) == 2
    assert sys.getrefcount(frame) == before


# -- the tests themselves -------------------------------------------------------------------------

MUTANTS = {
    "the CRC is not looked at": (
        "if self._crc(memoryview(self._frame)[at + _BEFORE_CRC : stop]) != crc:",
        "if False:",
    ),
    "the CRC is that of other bytes": ("[at + _BEFORE_CRC : stop]", "[at + _BEFORE_CRC : end]"),
    "what is below the offset is read": ("if offset >= self._reached:", "if True:"),
    "what is compacted away at the end is asked for again": (
        "            self._reached = max(self._reached, base + last + 1)\n",
        "",
    ),
    "the last offset is asked for again": ("base + last + 1", "base + last"),
    "it goes back": ("max(self._reached, base + last + 1)", "base + last + 1"),
    "there is no limit": (
        "        if records > most:\n            raise _OddError\n",
        "",
    ),
    "each batch has a limit of its own": ("if records > most", "if count > most"),
    "the time of the broker is not used": (
        "time = max_time if attributes & LOG_APPEND_TIME else None",
        "time = None",
    ),
    "the time of the broker is always used": (
        "time = max_time if attributes & LOG_APPEND_TIME else None",
        "time = max_time",
    ),
    "a batch that is cut off is not plain": (
        "            break  # the",
        "            raise _OddError  # the",
    ),
    "what is compressed is plain": (" or attributes & COMPRESSED_OR_CONTROL", ""),
    "every version is plain": (" or magic != 2", ""),
    "offsets and times may be too high": (
        "if not (0 <= base < NUMBER_MAX and abs(first_time) < NUMBER_MAX and last >= 0):",
        "if False:",
    ),
    "a record may be behind the last one": ("if not 0 <= of_offset <= last:", "if of_offset < 0:"),
    "a record may be before the first one": ("0 <= of_offset <= last", "of_offset <= last"),
    "a record may be shorter than it says": (
        "        if self._at != stop:\n            raise _OddError\n        offset = ",
        "        offset = ",
    ),
    "a batch may have bytes too much": (
        "            if self._at != stop:\n                raise _OddError\n            # Also",
        "            # Also",
    ),
    "a size may be too low": ("if not -1 <= size <= stop", "if not size <= stop"),
    "there may be less than no headers": ("if count < 0:", "if False:"),
    "a name that is not UTF-8 is a fault": (
        "(UnicodeDecodeError, _OddError)",
        "(IndexError, _OddError)",
    ),
}


@pytest.mark.parametrize("name", ["", *MUTANTS])
def test_a_mutant_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is none: what a mutant shows, it shows because of its change."""
    old, new = MUTANTS.get(name, ("class _Reading", "class _Reading"))
    monkeypatch.setitem(
        sys.modules, "prosody._core.fetched_py", mutant("_core.fetched_py", old, new)
    )

    @settings(max_examples=300, derandomize=True, database=None, phases=[Phase.generate])
    @given(CASES)
    def check(case: Case) -> None:
        case.check("python")

    found = False
    try:
        for make in ODD.values():
            assert read("python", batch(3) + make(7), 3) is None
        test_as_many_as_are_allowed_are_read("python")
        test_records_from_the_offset_on_are_read("python")
        check()
    except Exception:  # a mutant fails as it likes
        found = True
    assert found is bool(name)
