"""``python -m benchmarks.path.layers``: what each layer of the pipeline costs a message, by leaving it out.

The embedded broker, a no-op handler, default options. A round plays the bare loop, the whole pipeline as it
is, where first attempts go straight, the pipeline with each layer's own call, and that without each of
its layers. Each in an order of its own, with a broker of its own and with everything older hidden from the
garbage collector: a run must not pay for what runs before it left. Of each the round with the least CPU
time counts, because other programs only ever add to it. A layer's cost is the difference to all of them,
so the most that it can cost where all go straight. Left out, the scheduler still hands out permits, since
lanes take them with their work; it charges nothing. Telemetry's cost is that of its layer and of writing
the events as well.
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
from prosody.middleware import stacks
from prosody.middleware.base import compose
from prosody.middleware.straight import Straight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.path.places import Place
    from benchmarks.path.work import Row
    from prosody.middleware.base import Call, Layer

LAYERS = (
    "Deduplication", "Retry", "Defer", "Monopolization", "Shutdown", "Scheduler", "Timeout",
    "Telemetry",
)  # fmt: skip
BARE, WHOLE, LAYERED = "bare loop", "whole pipeline", "each layer by its own call"
NAMES = (BARE, WHOLE, LAYERED, *LAYERS)
WITHOUT_WINDOW = ("Monopolization", "Scheduler")


def _layers(straight: Straight, *_: object) -> Call:
    return straight._layers


async def one(name: str, place: Place, count: int) -> Row:
    """The bare loop, the whole pipeline, or its layers without the one of this name."""

    def without(layers: Sequence[Layer], handler: Call) -> Call:
        return compose([one for one in layers if type(one).__name__ != name], handler)

    if name == BARE:
        return await bare(place, count, "uniform 1000", 0.0)
    options: dict[str, object] = {}
    if name in WITHOUT_WINDOW:
        # The scheduler tells Monopolization's window of each run: that goes with it, and is left out of the
        # scheduler's own cost.
        options["monopolization_enabled"] = False
    if name == "Deduplication":
        options["idempotence_cache_size"] = 0
    run = client("pipeline", **options)
    if name == WHOLE:
        return await run(place, count, "uniform 1000", 0.0)
    with (
        mock.patch.object(Straight, "begins", _layers),
        mock.patch.object(stacks, "compose", without),
    ):
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
    for layer in LAYERS:
        beside = least["Monopolization"] if layer == "Scheduler" else least[LAYERED]
        cost_us = beside - least[layer]
        print(f"| {layer} | {cost_us:.2f} | {cost_us / bare_us:.2f} |")
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
