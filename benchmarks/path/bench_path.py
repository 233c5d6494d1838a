"""The whole path on the embedded broker, for pytest-benchmark: the bare loop, and the client in two modes.

Which half of the core runs is the environment's matter. What is timed is a run from joining to leaving,
so a little more than in ``benchmarks.path``; ``benchmarks.tracking.floors`` makes ratios of it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import prosody._core
from benchmarks.path.contestants import bare, client
from benchmarks.path.places import memory_place
from benchmarks.path.work import records

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.path.places import Place

MESSAGES = 30_000
ROUNDS = 5
CONTESTANTS = {
    "bare": bare,
    "best-effort": client("best-effort"),
    "pipeline": client("pipeline"),
}


@pytest.fixture(scope="module")
def around() -> Iterator[tuple[asyncio.Runner, Place]]:
    """An event loop, and a topic that every run consumes in a group of its own."""
    with asyncio.Runner() as runner:
        place = memory_place()
        runner.run(place.fill(records("uniform", MESSAGES, 1000)))
        yield runner, place


@pytest.mark.parametrize("contestant", list(CONTESTANTS))
def test_path(benchmark: Any, around: tuple[asyncio.Runner, Place], contestant: str) -> None:
    runner, place = around
    found = []

    def run() -> None:
        found.append(runner.run(CONTESTANTS[contestant](place, MESSAGES, "uniform 1000", 0.0)))

    benchmark.pedantic(run, rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info |= {"contestant": contestant, "half": prosody._core.IMPLEMENTATION}
    assert not any(row.fault for row in found)
