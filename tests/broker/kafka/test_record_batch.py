"""A batch that is put together here is what aiokafka reads, and what it would have made itself."""

from __future__ import annotations

import pytest
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from prosody._core import many_records_py
from prosody._core.constants import BATCH_RECORDS
from prosody.broker.kafka.record_batch import RecordBatch
from tests.core.halves import HALVES, core_function

NOW_MS = 1_700_000_000_123
SIZES = st.sampled_from(
    [0, 1, 63, 64, 127, 128, 8191, 8192, BATCH_RECORDS - 1, BATCH_RECORDS, 70_000]
)
both_halves = pytest.mark.parametrize("half", HALVES)


def add(half: str, batch: RecordBatch, *records: tuple[bytes, bytes]) -> bool:
    """Add as many as there is room for; whether it is full now."""
    keys, values = zip(*records, strict=True)
    frame_records = core_function(half, "frame_records")
    assert frame_records({0: batch}, [0] * len(records), keys, values, 0) == len(records)
    return batch.full


def read(content: bytes) -> list[tuple[int, int, bytes | None, bytes | None, list[object]]]:
    records = MemoryRecords(content)
    found = []
    while records.has_next():
        batch = records.next_batch()
        assert batch.validate_crc()
        assert (batch.magic, batch.compression_type, batch.timestamp_type) == (2, 3, 0)
        assert (batch.producer_id, batch.producer_epoch) == (-1, -1)
        assert batch.max_timestamp == NOW_MS
        found += [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in batch]
    return found


@both_halves
@given(sizes=st.lists(st.tuples(SIZES, SIZES, st.binary(max_size=4)), min_size=1, max_size=8))
def test_it_is_read_as_it_was_written(half: str, sizes: list[tuple[int, int, bytes]]) -> None:
    records = [(seed + b"k" * key, b"v" * value + seed) for key, value, seed in sizes]
    batch = RecordBatch(NOW_MS, 1 << 30)
    assert not add(half, batch, *records)
    assert batch.record_count() == len(records)
    assert read(batch._build()) == [
        (n, NOW_MS, key, value, []) for n, (key, value) in enumerate(records)
    ]
    assert batch._build() is batch._build()


@both_halves
def test_it_is_full_by_bytes_and_by_number(half: str) -> None:
    batch = RecordBatch(NOW_MS, 100)
    assert not add(half, batch, (b"k", b"v" * 80))
    assert add(half, batch, (b"k", b"v" * 80))
    batch = RecordBatch(NOW_MS, 1 << 30)
    assert not add(half, batch, *((b"k", b"%d" % n) for n in range(BATCH_RECORDS - 1)))
    assert add(half, batch, (b"k", b"%d" % (BATCH_RECORDS - 1)))
    found = read(batch._build())
    assert [(n, int(value or b"")) for n, _, _, value, _ in found] == [
        (n, n) for n in range(BATCH_RECORDS)
    ]


def test_numbers_are_written_as_kafka_does() -> None:
    assert [many_records_py._varint(n) for n in (0, 1, 63, 64, 300)] == [
        b"\x00", b"\x02", b"\x7e", b"\x80\x01", b"\xd8\x04"
    ]  # fmt: skip


def test_it_is_what_aiokafka_takes_for_a_batch() -> None:
    """The names that aiokafka asks a batch for; one that was renamed would show only on a real broker."""
    batch = RecordBatch(NOW_MS, 100)
    add("python", batch, (b"k", b"v"))
    batch.close()
    assert batch.closed()
    size = batch.size()
    assert size > 0
    batch._build()
    assert batch.size() == size
    from aiokafka.producer.message_accumulator import BatchBuilder

    for name in ("record_count", "closed", "close", "size", "_build"):
        assert hasattr(BatchBuilder, name)
