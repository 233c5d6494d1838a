"""The offset tracker, one operation each, both halves.

A benchmark runs 1,000 operations, so milliseconds shown are microseconds for one; encoding and
decoding run once, so what is shown is what one costs. As many offsets are outstanding after an
operation as before.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

import pytest

from prosody._core import offset_tracker_c, offset_tracker_py
from prosody._core.offset_set import decode_finished

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

OPERATIONS = 1_000
SIZES = [64, 1_024, 8_192, 100_000]

both_halves = pytest.mark.parametrize(
    "make",
    [offset_tracker_c.OffsetTracker, offset_tracker_py.OffsetTracker],
    ids=["cython", "python"],
)
all_sizes = pytest.mark.parametrize("size", SIZES)


def filled(make: Any, size: int, step: int = 1) -> tuple[Any, itertools.count[int]]:
    """A tracker with ``size`` offsets outstanding, and the offsets that come after them."""
    tracker = make()
    offsets = itertools.count(0, step)
    for offset in itertools.islice(offsets, size):
        tracker.admit(offset, 1.5)
    return tracker, offsets


@both_halves
@all_sizes
def test_admit_complete_in_order(benchmark: BenchmarkFixture, make: Any, size: int) -> None:
    """Admit the next offset and complete the lowest: the committable offset moves each time."""
    tracker, offsets = filled(make, size)
    lowest = itertools.count()

    @benchmark
    def run() -> None:
        admit, complete = tracker.admit, tracker.complete
        for offset, done in zip(itertools.islice(offsets, OPERATIONS), lowest, strict=False):
            admit(offset, 1.5)
            complete(done)

    assert tracker.outstanding == size


@both_halves
@pytest.mark.parametrize("step", [1, 7], ids=["consecutive", "gaps"])
@all_sizes
def test_admit_complete_in_any_order(
    benchmark: BenchmarkFixture, make: Any, step: int, size: int
) -> None:
    """Admit the next offset and complete one drawn from all that are outstanding."""
    tracker, offsets = filled(make, size, step)
    outstanding = list(range(0, size * step, step))
    chance = random.Random(size)
    draws = [chance.randrange(size) for _ in range(OPERATIONS)]

    @benchmark
    def run() -> None:
        admit, complete = tracker.admit, tracker.complete
        for draw, offset in zip(draws, offsets, strict=False):
            admit(offset, 1.5)
            complete(outstanding[draw])
            outstanding[draw] = offset

    assert tracker.outstanding == size


@both_halves
def test_admit_complete_behind_a_blocked_head(benchmark: BenchmarkFixture, make: Any) -> None:
    """Offset 0 stays unfinished while everything behind it is admitted and finished."""
    tracker, offsets = filled(make, 1)

    @benchmark
    def run() -> None:
        admit, complete = tracker.admit, tracker.complete
        for offset in itertools.islice(offsets, OPERATIONS):
            admit(offset, 1.5)
            complete(offset)

    assert tracker.committable == 0


@both_halves
@all_sizes
def test_read_committable_and_oldest(benchmark: BenchmarkFixture, make: Any, size: int) -> None:
    """What the committer and the stall watch read, with finished offsets behind the head."""
    tracker, _ = filled(make, size)
    for offset in range(1, size, 2):
        tracker.complete(offset)

    @benchmark
    def run() -> None:
        for _ in range(OPERATIONS):
            tracker.committable  # noqa: B018
            tracker.oldest()

    assert tracker.oldest() == (0, 1.5)


@both_halves
@all_sizes
def test_admit_complete_and_ask_for_the_length(
    benchmark: BenchmarkFixture, make: Any, size: int
) -> None:
    """The same in any order, and the length of the encoding asked for at each admission."""
    tracker, offsets = filled(make, size)
    outstanding = list(range(size))
    chance = random.Random(size)
    draws = [chance.randrange(size) for _ in range(OPERATIONS)]

    @benchmark
    def run() -> None:
        admit, complete, length = tracker.admit, tracker.complete, tracker.encoded_length
        for draw, offset in zip(draws, offsets, strict=False):
            admit(offset, 1.5)
            length()
            complete(outstanding[draw])
            outstanding[draw] = offset

    assert tracker.outstanding == size


def scattered(make: Any, size: int) -> Any:
    """``size`` offsets outstanding, every second one of those admitted."""
    tracker, _ = filled(make, 2 * size)
    for offset in range(1, 2 * size, 2):
        tracker.complete(offset)
    return tracker


@both_halves
@all_sizes
def test_encode_finished(benchmark: BenchmarkFixture, make: Any, size: int) -> None:
    """One text of the longest that a broker takes; beyond 8,192 outstanding it holds a part."""
    tracker = scattered(make, size)
    benchmark.extra_info["operations"] = 1
    text = benchmark(tracker.encode_finished, 4_096)
    assert 0 < len(text) <= 4_096


@all_sizes
def test_decode_finished(benchmark: BenchmarkFixture, size: int) -> None:
    """The same text read."""
    text = scattered(offset_tracker_c.OffsetTracker, size).encode_finished(4_096)
    benchmark.extra_info["operations"] = 1
    runs = benchmark(decode_finished, text, 0)
    assert len(runs) <= size
