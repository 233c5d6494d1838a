"""The virtual-time heap, one operation each: both halves, and a full scan of each as the baseline.

A benchmark runs 1,000 operations, so milliseconds shown are microseconds for one; those of the scans
fewer, see ``operations`` in the results. As much waits after an operation as before.

An operation is a whole turn of a closed loop: a run ends and is charged, its key waits again, and who is
next is picked; the simulation around it, a heap of the ends of 32 runs, is timed as well. So that the
heap is in the state which the loop leads to, it has turned twice as often as there are keys before it
is timed; a scan costs the same in every state.
"""

from __future__ import annotations

import heapq
import importlib
import random
import tempfile
from functools import cache
from math import inf
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import full_scan_py
from prosody._core import vtime_heap_c, vtime_heap_py

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

OPERATIONS = 1_000
SIZES = [64, 1_024, 8_192, 100_000]
SLOTS = 32
RUN_S = 0.05
DEFAULTS: dict[str, Any] = {
    "failure_weight": 0.3,
    "max_wait": 120.0,
    "wait_weight": 200.0,
    "cache_size": 8192,
    "half_life": 120.0,
}

HALVES = {"cython": vtime_heap_c.VirtualTimeHeap, "python": vtime_heap_py.VirtualTimeHeap}
both_halves = pytest.mark.parametrize("half", list(HALVES))
all_sizes = pytest.mark.parametrize("size", SIZES)


@cache
def compiled_scan() -> Any:
    """The class, compiled now: it is no part of the package."""
    import pyximport

    with tempfile.TemporaryDirectory() as folder:
        importers = pyximport.install(build_dir=folder, language_level=3)
        try:
            return importlib.import_module("benchmarks.full_scan_c").FullScan
        finally:
            pyximport.uninstall(*importers)


class Loop:
    """A closed loop of ``size`` waiting keys and 32 that run, with exponential run times."""

    def __init__(self, heap: Any, size: int, turns: int) -> None:
        self.heap = heap
        self.chance = random.Random(1)
        self.now = 0.0
        for number in range(size + SLOTS):
            heap.push(key := f"key-{number}", key, 0, 0.0)
        self.ends = [(used := self.used(), heap.pop(0.0), used) for _ in range(SLOTS)]
        heapq.heapify(self.ends)
        while turns > 0:
            self.turn([self.used() for _ in range(min(turns, OPERATIONS))])
            turns -= OPERATIONS

    def used(self) -> float:
        return self.chance.expovariate(1.0) * RUN_S

    def turn(self, lengths: list[float]) -> None:
        ends = self.ends
        pop, complete, push = self.heap.pop, self.heap.complete, self.heap.push
        for length in lengths:
            now, key, used = ends[0]
            complete(key, used, now)
            push(key, key, 0, now)
            heapq.heapreplace(ends, (now + length, pop(now), length))


@pytest.mark.parametrize("side", ["cython", "python", "cython-scan", "python-scan"])
@all_sizes
def test_select_and_charge(benchmark: BenchmarkFixture, side: str, size: int) -> None:
    """Charge the run that ended, let its key wait again, select the next."""
    if side.endswith("scan"):
        make = compiled_scan() if side == "cython-scan" else full_scan_py.FullScan
        # A round looks at some 100,000 tasks, but for those of the greatest size.
        operations = min(OPERATIONS, max(5, 100_000 // size))
        loop = Loop(make(), size, 0)
    else:
        operations = OPERATIONS
        loop = Loop(HALVES[side](**DEFAULTS), size, 2 * size)
        assert loop.heap.waiting == size
    benchmark.extra_info["operations"] = operations
    benchmark(loop.turn, [loop.used() for _ in range(operations)])


@both_halves
@pytest.mark.parametrize("size", SIZES[:3])
def test_select_among_equals_in_priority(benchmark: BenchmarkFixture, half: str, size: int) -> None:
    """The worst state there is: all priorities are equal, boosts making up for the debts.

    No entry is dominated and no bound excludes any, so that this is a scan. To get there, as many
    keys must have used just so much; no closed loop leads there.
    """
    selected = 20
    benchmark.extra_info["operations"] = selected

    def balanced() -> tuple[tuple[Any], dict[str, Any]]:
        heap = HALVES[half](**{**DEFAULTS, "half_life": inf, "cache_size": size})
        for number in range(size):
            share = (size - number) / size
            heap.push(number, number, 0, 0.0)
            heap.pop(0.0)
            heap.complete(number, 200.0 * (share * share), 0.0)
        for number in range(size):
            heap.push(number, number, 0, 120.0 * number / size)
        return (heap,), {}

    def select(heap: Any) -> None:
        for _ in range(selected):
            heap.pop(120.0)

    benchmark.pedantic(select, setup=balanced, rounds=5)


@both_halves
@all_sizes
def test_select_and_charge_of_fresh_keys(benchmark: BenchmarkFixture, half: str, size: int) -> None:
    """Each key is new and runs once, with the memory for keys full: the least debt is forgotten."""
    heap = HALVES[half](**{**DEFAULTS, "cache_size": size})
    chance = random.Random(1)
    number = 0
    now = 0.0

    def flood(turns: int) -> None:
        nonlocal number, now
        for _ in range(turns):
            now += 0.001
            heap.push(number, number, 0, now)
            heap.complete(heap.pop(now), chance.random(), now)
            number += 1

    flood(size + OPERATIONS)
    benchmark(flood, OPERATIONS)
    assert heap.remembered == size
