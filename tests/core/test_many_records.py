"""Both halves put records where they belong, in the same bytes.

That Kafka's format is right is checked beside aiokafka in ``tests/broker/kafka/test_record_batch.py``.
"""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosody._core.constants import BATCH_RECORDS
from prosody.broker.partitioners import PARTITIONERS, murmur2
from tests.core.halves import HALVES, core_function

both_halves = pytest.mark.parametrize("half", HALVES)
SIZES = st.sampled_from([0, 1, 63, 64, 127, 128, 8191, 8192, BATCH_RECORDS, 70_000])


class Batch:
    """The least that is framed."""

    def __init__(self, bytes_max: int = 1 << 30, count: int = 0) -> None:
        self.parts: list[bytes] = []
        self.length = 0
        self.count = count
        self.bytes_max = bytes_max

    def told(self) -> tuple[bytes, int, int]:
        content = b"".join(self.parts)
        assert len(content) == self.length
        return content, self.length, self.count


# -- where keys live ------------------------------------------------------------------------------


@both_halves
@pytest.mark.parametrize("partitioner", PARTITIONERS)
@given(keys=st.lists(st.binary(max_size=40)), count=st.integers(1, 2**31 - 1))
def test_a_key_lives_where_its_hash_says(
    half: str, partitioner: str, keys: list[bytes], count: int
) -> None:
    def find(key: bytes) -> int:
        asked.append(key)
        known[key] = at(key)
        return at(key)

    def at(key: bytes) -> int:
        return (zlib.crc32(key) if partitioner == "crc32" else murmur2(key) & 0x7FFFFFFF) % count

    asked: list[bytes] = []
    known: dict[bytes, int] = {}
    keys = [key for key in keys for _ in range(2)] + keys
    key_partitions = core_function(half, "key_partitions")
    assert key_partitions(keys, count, partitioner, known, find) == [at(key) for key in keys]
    assert len(asked) == len({*asked})


@both_halves
def test_who_finds_partitions_is_asked_where_there_is_no_hash(half: str) -> None:
    def find(key: bytes) -> int:
        return {b"a": 5, b"b": 2}[key]

    key_partitions = core_function(half, "key_partitions")
    assert key_partitions([b"a", b"b", b"a"], 9, "other", {}, find) == [5, 2, 5]
    with pytest.raises(KeyError):
        key_partitions([b"c"], 9, "other", {}, find)
    with pytest.raises(KeyError):
        key_partitions([b"c"], 0, "crc32", {}, find)


# -- the embedded broker --------------------------------------------------------------------------


@both_halves
def test_records_are_kept_in_order(half: str) -> None:
    logs: list[list[Any]] = [["old"], [], []]
    core_function(half, "keep_records")(
        logs, [2, 0, 2, 0], [b"a", b"b", b"a", b"c"], (b"1", b"2", b"3", b"4"), 12
    )
    assert logs == [
        ["old", (12, b"b", b"2", ()), (12, b"c", b"4", ())],
        [],
        [(12, b"a", b"1", ()), (12, b"a", b"3", ())],
    ]  # fmt: skip


@both_halves
def test_a_partition_that_is_not_there_is_refused(half: str) -> None:
    with pytest.raises(IndexError):
        core_function(half, "keep_records")([[], []], [0, 2], [b"a"] * 2, [b"b"] * 2, 0)


@both_halves
def test_what_is_not_one_each_is_refused(half: str) -> None:
    log: list[Any] = []
    batch = Batch()
    for given_ in ([0], [b"a"] * 2, [b"b"] * 2), ([0] * 2, [b"a"], [b"b"] * 2), ([0], [b"a"], []):
        text = f"{len(given_[0])} partitions, {len(given_[1])} keys and {len(given_[2])} values"
        with pytest.raises(ValueError, match=text):
            core_function(half, "keep_records")([log], *given_, 0)
        with pytest.raises(ValueError, match=text):
            core_function(half, "frame_records")({0: batch}, *given_, 0)
    assert (log, batch.told()) == ([], (b"", 0, 0))


# -- Kafka ----------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 2), SIZES, SIZES, st.binary(max_size=4)), max_size=9),
    st.integers(0, 200_000),
    st.lists(st.integers(0, 5), max_size=3),
)
def test_both_halves_frame_the_same(
    made: list[tuple[int, int, int, bytes]], bytes_max: int, cuts: list[int]
) -> None:
    partitions = [partition for partition, *_ in made]
    keys = [seed + b"k" * size for _, size, _, seed in made]
    values = [b"v" * size + seed for _, _, size, seed in made]

    def framed(half: str) -> list[Any]:
        """All of it: how far each call came, and what every batch holds."""
        frame_records = core_function(half, "frame_records")
        open_ = {n: Batch(bytes_max) for n in range(3)}
        everything: list[Any] = []
        # In several calls, as slices come one after the other.
        for end in [*sorted(cuts), len(made)]:
            done = 0
            part = partitions[:end], keys[:end], values[:end]
            while done < len(part[0]):
                done = frame_records(open_, *part, done)
                last = part[0][done - 1]
                everything.append((done, *(batch.told() for batch in open_.values())))
                if open_[last].length >= bytes_max:
                    open_[last] = Batch(bytes_max)
        return everything

    assert framed("cython") == framed("python")


@both_halves
def test_a_batch_is_full_by_bytes_and_by_number(half: str) -> None:
    frame_records = core_function(half, "frame_records")
    batch = Batch(180)
    assert frame_records({3: batch}, [3] * 4, [b"k"] * 4, [b"v" * 80] * 4, 0) == 2
    assert (batch.count, batch.length) == (2, 180)
    batch = Batch(count=BATCH_RECORDS - 2)
    assert frame_records({3: batch}, [3] * 4, [b"k"] * 4, [b"v"] * 4, 1) == 3
    assert batch.count == BATCH_RECORDS


@both_halves
@pytest.mark.parametrize(
    ("partition", "value", "error"),
    [(1, b"v", KeyError), (0, "v", TypeError), (0, None, TypeError)],
)
def test_what_came_before_a_fault_is_counted(
    half: str, partition: int, value: Any, error: type[Exception]
) -> None:
    batch, sound = Batch(), Batch()
    frame_records = core_function(half, "frame_records")
    with pytest.raises(error):
        frame_records({0: batch}, [0, partition, 0], [b"k"] * 3, [b"v", value, b"v"], 0)
    frame_records({0: sound}, [0], [b"k"], [b"v"], 0)
    assert batch.told() == sound.told()
