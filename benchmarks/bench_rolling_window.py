"""The rolling windows, one operation each, both halves.

A benchmark runs 1,000 operations, so milliseconds shown are microseconds for one. As many keys are
remembered after an operation as before.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from prosody._core import (
    outcome_window_c,
    outcome_window_py,
    rolling_window_c,
    rolling_window_py,
)

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

OPERATIONS = 1_000
SIZES = [64, 1_024, 8_192, 100_000]
WINDOW = 300.0
# So short that a benchmark ends before the window has moved by one bucket.
RUN = 1e-7

both_halves = pytest.mark.parametrize(
    "half", [rolling_window_c, rolling_window_py], ids=["cython", "python"]
)
of_outcomes = pytest.mark.parametrize(
    "half", [outcome_window_c, outcome_window_py], ids=["cython", "python"]
)
all_sizes = pytest.mark.parametrize("size", SIZES)


def filled(half: Any, size: int, cache_size: int | None = None) -> tuple[Any, Any]:
    """A window that remembers ``size`` keys, which ran all over it, and the times that come next."""
    window = half.TimeWindow(WINDOW, cache_size or size)
    for number in range(size):
        window.begin(number, number * WINDOW / size)
        window.end(number, (number + 0.5) * WINDOW / size)
    return window, itertools.count(WINDOW, RUN)


@both_halves
@all_sizes
def test_begin_end(benchmark: BenchmarkFixture, half: Any, size: int) -> None:
    """A run of a key that is remembered: begin and end together."""
    window, times = filled(half, size)
    keys = itertools.cycle(range(0, size, 7))

    @benchmark
    def run() -> None:
        begin, end = window.begin, window.end
        for key, now in zip(itertools.islice(keys, OPERATIONS), times, strict=False):
            begin(key, now)
            end(key, now + RUN)

    assert window.remembered == size


@both_halves
@all_sizes
def test_begin_end_evict(benchmark: BenchmarkFixture, half: Any, size: int) -> None:
    """A run of a key never seen before, while the cache is full: begin, end and an eviction."""
    window, times = filled(half, size)
    fresh = itertools.count(size)

    @benchmark
    def run() -> None:
        begin, end = window.begin, window.end
        for key, now in zip(itertools.islice(fresh, OPERATIONS), times, strict=False):
            begin(key, now)
            end(key, now + RUN)

    assert window.remembered == size


@both_halves
@all_sizes
def test_used(benchmark: BenchmarkFixture, half: Any, size: int) -> None:
    """What a message costs before its handler runs."""
    window, times = filled(half, size)
    keys = itertools.cycle(range(0, size, 7))

    @benchmark
    def run() -> None:
        used = window.used
        for key, now in zip(itertools.islice(keys, OPERATIONS), times, strict=False):
            used(key, now)

    assert window.remembered == size


@both_halves
def test_room_at(benchmark: BenchmarkFixture, half: Any) -> None:
    """What a refusal costs: the key used something in each bucket."""
    window = half.TimeWindow(WINDOW, 8_192)
    for number in range(128):
        window.begin("hot", number * WINDOW / 128)
        window.end("hot", (number + 0.95) * WINDOW / 128)
    times = itertools.count(WINDOW, RUN)

    @benchmark
    def run() -> None:
        room_at = window.room_at
        for now in itertools.islice(times, OPERATIONS):
            room_at("hot", WINDOW / 2, now)

    assert window.room_at("hot", WINDOW / 2, WINDOW) > 1.4 * WINDOW


@both_halves
@all_sizes
def test_a_bucket_leaves(benchmark: BenchmarkFixture, half: Any, size: int) -> None:
    """Once: the call that empties the same bucket in each of ``size`` keys, which used the next too.

    The one benchmark whose time is that of a single call.
    """

    def full() -> tuple[tuple[Any, float], dict[str, Any]]:
        window = half.TimeWindow(WINDOW, size)
        for begin, end in [(0.0, 1.0), (5.0, 6.0)]:
            for key in range(size):
                window.begin(key, begin)
            for key in range(size):
                window.end(key, end)
        return (window, 65 * WINDOW / 64), {}

    benchmark.extra_info.update(operations=size, each="key")
    benchmark.pedantic(lambda window, now: window.used(0, now), setup=full, rounds=5)


@of_outcomes
def test_record(benchmark: BenchmarkFixture, half: Any) -> None:
    """One outcome."""
    window = half.OutcomeWindow(WINDOW, 20)
    times = itertools.count(WINDOW, RUN)

    @benchmark
    def run() -> None:
        record = window.record
        for now in itertools.islice(times, OPERATIONS):
            record(False, now)

    assert window.counts(WINDOW)[1] == 0


@of_outcomes
def test_failure_rate(benchmark: BenchmarkFixture, half: Any) -> None:
    """What the gate asks."""
    window = half.OutcomeWindow(WINDOW, 20)
    for number in range(1_000):
        window.record(number % 3 == 0, number * WINDOW / 1_000)
    times = itertools.count(WINDOW, RUN)

    @benchmark
    def run() -> None:
        failure_rate = window.failure_rate
        for now in itertools.islice(times, OPERATIONS):
            failure_rate(now)

    assert window.failure_rate(WINDOW) == pytest.approx(1 / 3, abs=0.01)
