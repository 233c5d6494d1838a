"""The key queue, one operation each, both halves.

A benchmark runs 1,000 operations, so milliseconds shown are microseconds for one. The queue is in a
steady state: after an operation it holds as much as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from prosody._core import key_queue_c, key_queue_py

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

OPERATIONS = 1_000
SIZES = [64, 1_024, 8_192, 100_000]

both_halves = pytest.mark.parametrize(
    "make", [key_queue_c.KeyQueue, key_queue_py.KeyQueue], ids=["cython", "python"]
)
all_sizes = pytest.mark.parametrize("size", SIZES)


@both_halves
def test_push_pop_done_of_an_idle_key(benchmark: BenchmarkFixture, make: Any) -> None:
    """What a message costs when its key has nothing else: push, pop and done together."""
    queue = make()
    keys = [f"key-{number}" for number in range(OPERATIONS)]
    entry = object()

    @benchmark
    def run() -> None:
        push, pop, done = queue.push, queue.pop, queue.done
        for key in keys:
            push(key, entry)
            pop()
            done(key)

    assert queue.keys == 0


@both_halves
@all_sizes
def test_push_pop_done_among_ready_keys(benchmark: BenchmarkFixture, make: Any, size: int) -> None:
    """The same with ``size`` other keys ready: the one that is served was pushed long before."""
    queue = make()
    for number in range(size):
        queue.push(key := f"key-{number}", key)

    @benchmark
    def run() -> None:
        push, pop, done = queue.push, queue.pop, queue.done
        for _ in range(OPERATIONS):
            key = pop()
            done(key)
            push(key, key)

    assert (queue.ready, queue.in_flight) == (size, 0)


@both_halves
@all_sizes
def test_push_pop_done_of_a_hot_key(benchmark: BenchmarkFixture, make: Any, size: int) -> None:
    """All of ``size`` entries are of one key, so that each waits for the one before."""
    queue = make()
    for number in range(size):
        queue.push("hot", number)

    @benchmark
    def run() -> None:
        push, pop, done = queue.push, queue.pop, queue.done
        for _ in range(OPERATIONS):
            entry = pop()
            done("hot")
            push("hot", entry)

    assert (queue.queued, queue.keys) == (size, 1)


@both_halves
@all_sizes
def test_clear(benchmark: BenchmarkFixture, make: Any, size: int) -> None:
    """Once, of ``size`` entries in ``size / 4`` keys: what a revoked partition costs.

    The one benchmark whose time is that of a single call.
    """

    def full() -> tuple[tuple[Any], dict[str, Any]]:
        queue = make()
        for number in range(size):
            queue.push(number % (size // 4), number)
        return (queue,), {}

    benchmark.extra_info.update(operations=size, each="entry")
    dropped = benchmark.pedantic(lambda queue: queue.clear(), setup=full, rounds=5)
    assert dropped == list(range(size))
