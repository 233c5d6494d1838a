"""Many records on their way into their partitions, both halves.

A benchmark takes 1,000 records, so milliseconds shown are microseconds for one. Of each key there are two,
one after the other, as of a message's events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from prosody._core import many_records_c, many_records_py
from prosody.broker.kafka.record_batch import RecordBatch
from prosody.broker.partitioners import partition_for

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

RECORDS = 1_000
PARTITIONS = 4
KEYS = [key for n in range(RECORDS // 2) for key in [b"key-%d" % (n % 250)] * 2]
NUMBERS = [partition_for("crc32", key, PARTITIONS, lambda: 0.0) for key in KEYS]
VALUES = [b"%250d" % n for n in range(RECORDS)]

both_halves = pytest.mark.parametrize(
    "module", [many_records_c, many_records_py], ids=["cython", "python"]
)


@both_halves
@pytest.mark.parametrize("partitioner", ["crc32", "murmur2"])
@pytest.mark.parametrize("seen", [True, False], ids=["known", "new"])
def test_partition_of_a_key(
    benchmark: BenchmarkFixture, module: Any, partitioner: str, seen: bool
) -> None:
    """Known: the half that remembers keys has seen them before."""
    known: dict[bytes, int] = {}

    def find(key: bytes) -> int:
        known[key] = partition_for(partitioner, key, PARTITIONS, lambda: 0.0)
        return known[key]

    @benchmark
    def found() -> Any:
        if not seen:
            known.clear()
        return module.key_partitions(KEYS, PARTITIONS, partitioner, known, find)

    assert found == [find(key) for key in KEYS]


@both_halves
def test_frame_for_kafka(benchmark: BenchmarkFixture, module: Any) -> None:
    """Into the batch of each partition, of 250 bytes each."""

    @benchmark
    def batches() -> Any:
        made = {number: RecordBatch(0, 1 << 30) for number in range(PARTITIONS)}
        module.frame_records(made, NUMBERS, KEYS, VALUES, 0)
        return made

    assert sum(batch.count for batch in batches.values()) == RECORDS


@both_halves
def test_keep_in_the_embedded_broker(benchmark: BenchmarkFixture, module: Any) -> None:
    @benchmark
    def logs() -> Any:
        made: list[list[Any]] = [[] for _ in range(PARTITIONS)]
        module.keep_records(made, NUMBERS, KEYS, VALUES, 1_700_000_000_000)
        return made

    assert sum(map(len, logs)) == RECORDS
