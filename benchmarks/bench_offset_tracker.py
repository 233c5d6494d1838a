"""The offset tracker, one operation each, both halves.

A benchmark runs 1,000 operations, so milliseconds shown are microseconds for one. As many offsets
are outstanding after an operation as before.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

import pytest

from prosody._core import offset_tracker_c, offset_tracker_py

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
