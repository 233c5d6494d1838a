"""Looking for offsets in what one fetch has brought."""

from __future__ import annotations

import struct

import pytest
from aiokafka import errors as lower
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from prosody.broker.kafka.chunks import Chunk, Found
from prosody.broker.protocol import TopicPartition
from tests.broker.kafka.fetched import batch, damaged, misnamed

TP = TopicPartition("t", 0)
_ATTRIBUTES = 21
_LAST_DELTA = 23
_PRODUCER = 43
_TRANSACTIONAL, _CONTROL = 0x10, 0x20
ABORT, COMMIT = b"\x00\x00\x00\x00", b"\x00\x00\x00\x01"


def chunk(offset: int, *batches: bytes, aborted: list[tuple[int, int]] | None = None) -> Chunk:
    return Chunk(TP, offset, b"".join(batches), aborted, 1_000)


def signed(data: bytearray) -> bytes:
    data[17:21] = struct.pack(">I", calc_crc32c(bytes(data[21:])))
    return bytes(data)


def reaching(data: bytes, last: int) -> bytes:
    """A batch whose last records were removed by compaction: its header still names the last offset."""
    found = bytearray(data)
    [first] = struct.unpack(">q", data[:8])
    found[_LAST_DELTA : _LAST_DELTA + 4] = struct.pack(">i", last - first)
    return signed(found)


def transactional(data: bytes, producer: int = 7) -> bytes:
    found = bytearray(data)
    found[_ATTRIBUTES + 1] |= _TRANSACTIONAL
    found[_PRODUCER : _PRODUCER + 10] = struct.pack(">qh", producer, 0)
    return signed(found)


def marker(offset: int, key: bytes) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=1, producer_id=7, producer_epoch=0,
        base_sequence=-1, batch_size=1_000,
    )  # fmt: skip
    assert builder.append(0, 1, key, b"", []) is not None
    found = bytearray(struct.pack(">q", offset) + bytes(builder.build())[8:])
    found[_ATTRIBUTES + 1] |= _CONTROL
    return signed(found)


def offsets(found: Chunk, *wanted: int) -> list[int | str]:
    """The offset at each place; "gone", or "ends" where the chunk does not reach."""
    answers: list[int | str] = []
    for offset in wanted:
        answer = found.find(offset)
        if answer is None:
            answers.append("ends")
        else:
            answers.append(answer.record.offset if answer.record else "gone")
    return answers


def test_forward_over_what_is_not_wanted() -> None:
    found = chunk(3, batch(*range(10)), batch(*range(10, 20)))
    assert offsets(found, 3, 4, 9, 10, 15, 19, 20) == [3, 4, 9, 10, 15, 19, "ends"]
    assert found.position == 20
    assert offsets(found, 20, 21) == ["ends", "ends"]


@pytest.mark.parametrize("codec", [0, 1, 3])
def test_the_middle_of_a_batch(codec: int) -> None:
    assert offsets(chunk(7, batch(*range(10), codec=codec)), 7, 9) == [7, 9]


def test_never_backward() -> None:
    found = chunk(3, batch(*range(10)))
    assert offsets(found, 5) == [5]
    with pytest.raises(AssertionError):
        found.find(5)


def test_a_gap_loses_no_record_behind_it() -> None:
    found = chunk(0, batch(0, 1), batch(7, 8))
    assert offsets(found, 1, 2, 5, 7, 8) == [1, "gone", "gone", 7, 8]
    assert offsets(chunk(2, batch(7, 8)), 2, 6, 8) == ["gone", "gone", 8]


def test_a_gap_at_the_end() -> None:
    found = chunk(1, reaching(batch(0, 1), last=5))
    assert offsets(found, 1, 2, 5, 6) == [1, "gone", "gone", "ends"]
    assert offsets(chunk(4, reaching(batch(0, 1), last=5)), 4) == ["gone"]


def test_markers_and_aborted_records() -> None:
    log = (transactional(batch(0, 1)), marker(2, ABORT), transactional(batch(3)), marker(4, COMMIT))
    found = chunk(0, *log, aborted=[(7, 0)])
    assert offsets(found, 0, 1, 2, 3, 4, 5) == ["gone", "gone", "gone", 3, "gone", "ends"]


def test_nothing() -> None:
    assert offsets(chunk(3), 3) == ["ends"]


def test_a_header_name_that_is_not_utf8_is_read_with_escapes() -> None:
    found = chunk(0, batch(0, 1), misnamed(2, 3, 4), batch(5))
    assert offsets(found, 1, 2) == [1, 2]
    answer = found.find(4)
    assert isinstance(answer, Found)
    assert answer.record is not None
    assert [name for name, _ in answer.record.headers] == ["first", "\\xff\\xfe\\xfd\\xfc"]
    assert offsets(found, 5, 6) == [5, "ends"]


def test_damage_is_an_error_from_there_on() -> None:
    found = chunk(0, batch(0, 1), damaged(2, 3), batch(4))
    assert offsets(found, 1) == [1]
    with pytest.raises(lower.CorruptRecordException):
        found.find(3)
    assert offsets(chunk(4, batch(4)), 4) == [4]


def test_a_part_of_a_batch_is_an_error() -> None:
    with pytest.raises(lower.RecordTooLargeError):
        chunk(0, batch(0, 1)[:-1])
