"""``python -m benchmarks.path.layers``: what parts of the pipeline cost a message, by leaving them out.

The embedded broker, a no-op handler, default options. A round plays the bare loop, the whole pipeline,
the pipeline without what options can switch off, and with each layer's own call where first attempts go
straight otherwise. Each in an order of its own, with a broker of its own and with everything older hidden
from the garbage collector: a run must not pay for what runs before it left. Of each the round with the
least CPU time counts, because other programs only ever add to it. A part's cost is the difference to the
whole pipeline.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
from typing import TYPE_CHECKING
from unittest import mock

import prosody._core
from benchmarks.path.contestants import bare, client
from benchmarks.path.places import memory_place
from benchmarks.path.work import records
from prosody.middleware.straight import Straight

if TYPE_CHECKING:
    from benchmarks.path.places import Place
    from benchmarks.path.work import Row
    from prosody.middleware.base import Call

BARE, WHOLE, LAYERED = "bare loop", "whole pipeline", "each layer by its own call"
WITHOUT: dict[str, dict[str, object]] = {
    "Deduplication": {"idempotence_cache_size": 0},
    "Monopolization, with its window": {"monopolization_enabled": False},
    "Telemetry, with the writing of its events": {"telemetry_enabled": False},
}
"""The options that leave a layer out."""
NAMES = (BARE, WHOLE, LAYERED, *WITHOUT)


def _layers(straight: Straight, *_: object) -> Call:
    return straight._layers


async def one(name: str, place: Place, count: int) -> Row:
    """The bare loop, the whole pipeline, or the pipeline without the part of this name."""
    if name == BARE:
        return await bare(place, count, "uniform 1000", 0.0)
    run = client("pipeline", **WITHOUT.get(name, {}))
    if name != LAYERED:
        return await run(place, count, "uniform 1000", 0.0)
    with mock.patch.object(Straight, "begins", _layers):
        return await run(place, count, "uniform 1000", 0.0)


async def measure(count: int, rounds: int) -> int:
    work = records("uniform", count, 1000)
    chance = random.Random(1)
    least: dict[str, float] = {}
    broken = False
    for _ in range(rounds):
        for name in chance.sample(NAMES, len(NAMES)):
            place = memory_place()
            await place.fill(work)
            gc.collect()
            gc.freeze()
            row = await one(name, place, count)
            gc.unfreeze()
            least[name] = min(least.get(name, row.cpu_us), row.cpu_us)
            broken = broken or row.fault
    bare_us, whole_us = least[BARE], least[WHOLE]
    print(f"## Layers of the pipeline, embedded broker ({prosody._core.IMPLEMENTATION})\n")
    print("| | CPU us/message | of the bare loop |\n|---|---:|---:|")
    print(f"| bare loop | {bare_us:.2f} | 1.00 |")
    print(f"| whole pipeline | {whole_us:.2f} | {whole_us / bare_us:.2f} |")
    print(f"| {LAYERED} | {least[LAYERED]:.2f} | {least[LAYERED] / bare_us:.2f} |")
    for part in WITHOUT:
        cost_us = whole_us - least[part]
        print(f"| of the whole: {part} | {cost_us:.2f} | {cost_us / bare_us:.2f} |")
    if broken:
        print("BROKEN: a run lost, reordered or did not commit something")
    return 1 if broken else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.path.layers", description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    return asyncio.run(measure(arguments.messages, arguments.rounds))


if __name__ == "__main__":
    sys.exit(main())
