"""``python -m benchmarks.path.layers``: what each layer of the pipeline costs a message, by leaving it out.

The embedded broker, a no-op handler, default options. Rounds are interleaved (whole, without A, without B,
whole, ...); of each the round with the least CPU time counts, because other programs only ever add to it. A
layer's cost is the difference to the whole stack. Left out, the scheduler still hands out permits, since
lanes take them with their work; it charges nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING
from unittest import mock

import prosody._core
from benchmarks.path.contestants import bare, client
from benchmarks.path.places import memory_place
from benchmarks.path.work import records
from prosody.middleware import stacks
from prosody.middleware.base import compose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prosody.middleware.base import Call, Layer

LAYERS = ("Retry", "Monopolization", "Shutdown", "Scheduler", "Timeout")


async def measure(count: int, rounds: int) -> int:
    place = memory_place()
    work = records("uniform", count, 1000)
    least: dict[str, float] = {}
    broken = False

    def note(name: str, cpu_us: float) -> None:
        least[name] = min(least.get(name, cpu_us), cpu_us)

    for _ in range(rounds):
        await place.fill(work)
        note("bare loop", (await bare(place, count, "uniform 1000", 0.0)).cpu_us)
        for left_out in ("", *LAYERS):

            def without(layers: Sequence[Layer], handler: Call, off: str = left_out) -> Call:
                return compose([one for one in layers if type(one).__name__ != off], handler)

            await place.fill(work)
            with mock.patch.object(stacks, "compose", without):
                row = await client("pipeline")(place, count, "uniform 1000", 0.0)
            broken = broken or row.fault
            note(left_out, row.cpu_us)
    bare_us = least["bare loop"]
    print(f"## Layers of the pipeline, embedded broker ({prosody._core.IMPLEMENTATION})\n")
    print("| | CPU us/message | of the bare loop |\n|---|---:|---:|")
    print(f"| bare loop | {bare_us:.2f} | 1.00 |")
    print(f"| whole pipeline | {least['']:.2f} | {least[''] / bare_us:.2f} |")
    for layer in LAYERS:
        cost_us = least[""] - least[layer]
        print(f"| {layer} | {cost_us:.2f} | {cost_us / bare_us:.2f} |")
    if broken:
        print("BROKEN: a run lost, reordered or did not commit something")
    return 1 if broken else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.path.layers", description=__doc__)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    return asyncio.run(measure(arguments.messages, arguments.rounds))


if __name__ == "__main__":
    sys.exit(main())
