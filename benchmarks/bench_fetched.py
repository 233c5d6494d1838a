"""Records out of the answer to a fetch, beside aiokafka's own reading of them.

A benchmark reads 1,000 records, so milliseconds shown are microseconds for one.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from prosody._core import fetched_c, fetched_py
from prosody.broker.protocol import TopicPartition

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

RECORDS = 1_000
PLACE = TopicPartition("orders", 0)

both_halves = pytest.mark.parametrize("half", [fetched_c, fetched_py], ids=["cython", "python"])


def batch() -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1,
        base_sequence=-1, batch_size=10**6,
    )  # fmt: skip
    for offset in range(RECORDS):
        value = b'{"n": %d, "text": "hello"}' % offset
        builder.append(offset, 1_000, b"key-%d" % offset, value, [("source-system", b"shop")])
    return struct.pack(">q", 0) + bytes(builder.build())[8:]


@both_halves
def test_read(benchmark: BenchmarkFixture, half: Any) -> None:
    data = batch()
    read = benchmark(half.read_records, data, 0, len(data), PLACE, 0, RECORDS, calc_crc32c)
    assert (len(read[0]), read[1]) == (RECORDS, RECORDS)


def test_read_by_aiokafka(benchmark: BenchmarkFixture) -> None:
    data = batch()

    @benchmark
    def records() -> list[Any]:
        return list(
            PartitionRecords(PLACE, MemoryRecords(data), None, 0, None, None, True, READ_COMMITTED)
        )

    assert len(records) == RECORDS
