"""``python -m benchmarks.timers``: timers set, moved, cancelled and fired per second, and beside a million.

A message a key, whose handler makes one timer call; a phase is over when all its messages are handled. The
first phase makes no call: what it costs is subtracted from the CPU of the others. At last every key sets a
timer for the same second, and they fire. The calls go through a context, the manager of the partition and
the store, and each is durable before it returns.

The same again beside 1,000, 10,000 and 1,000,000 timers that wait for some day of the coming year, and
beside 1,000,000 of the coming hour: an operation may cost no more for them, and the managers hold no more
than their limit. Rounds over the sizes are interleaved, and of each the least CPU counts, because other
programs only ever add to it.

``--cassandra HOST:PORT`` measures the phases there too. Exits with 1 when a timer fired early, twice or
never, or was not there when it was asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.path.places import PARTITIONS
from benchmarks.storing import GROUP, opened
from benchmarks.timer_phases import YEAR_S, phases
from prosody.stores.protocol import Segment, StoredTimer, TimerKind

if TYPE_CHECKING:
    from benchmarks.storing import Bench
    from benchmarks.timer_phases import Row

HOUR_S = 3_600
WIDE = {"max_concurrency": 256, "max_uncommitted": 2048}
"""Calls wait for the store; with the defaults of 32 and 64 most of that time would be idle."""


@dataclass
class Crowd:
    """Timers that are there already, and what was measured beside them."""

    name: str
    bench: Bench
    count: int
    rows: list[Row] = field(default_factory=list)
    """Of each phase the round with the least CPU."""

    async def gather(self, over_s: int) -> None:
        """Store the timers, spread over ``over_s`` seconds that begin in five minutes."""
        await self.bench.place.fill([])
        begin, store = int(time.time()) + 300, self.bench.stores.inner.timers
        for number in range(self.count):
            segment = Segment(GROUP, self.bench.place.topic, number % PARTITIONS)
            due = begin + number * 7919 % over_s
            await store.add(segment, StoredTimer(due, TimerKind.APPLICATION, f"other-{number}", {}))

    async def measure(self, keys: int) -> None:
        """One round."""
        rows = await phases(self.bench, keys, 3.0, **WIDE)
        rows[-1].wrong["left"] = (await self.bench.look.left()).timers - self.count
        best = self.rows or rows
        self.rows = [
            (new if new.cpu_us < old.cpu_us else old)._replace(wrong=_added(old.wrong, new.wrong))
            for old, new in zip(best, rows, strict=True)
        ]


def _added(first: dict[str, int], second: dict[str, int]) -> dict[str, int]:
    return dict(Counter(first) + Counter(second))


def table(title: str, rows: list[Row]) -> str:
    lines = [f"## {title}", "", "| | a second | CPU us each | | wrong |", "|---|---:|---:|---|---|"]
    for row in rows:
        wrong = ", ".join(f"{name} {n}" for name, n in row.wrong.items() if n)
        name = f"BROKEN {row.name}" if wrong else row.name
        lines.append(
            f"| {name} | {row.rate:,.0f} | {row.cpu_us:.1f} | {row.note} | {wrong or '0'} |"
        )
    return "\n".join(lines) + "\n"


def growth(crowds: list[Crowd]) -> str:
    """CPU of each operation beside so many timers, and in ratio to the first crowd."""
    lines = [
        "| CPU us each | " + " | ".join(f"beside {crowd.name}" for crowd in crowds) + " |",
        "|---|" + "---:|" * len(crowds),
    ]
    for number, row in enumerate(crowds[0].rows):
        cells = [crowd.rows[number].cpu_us for crowd in crowds]
        shown = [f"{cpu_us:.1f} ({cpu_us / row.cpu_us:.2f} x)" for cpu_us in cells]
        broken = any(any(crowd.rows[number].wrong.values()) for crowd in crowds)
        lines.append(f"| {'BROKEN ' if broken else ''}{row.name} | " + " | ".join(shown) + " |")
    held = " | ".join(f"{crowd.bench.held:,}" for crowd in crowds)
    lines.append(f"| timers held in memory by the managers | {held} |")
    return "\n".join(lines) + "\n"


async def beside(arguments: argparse.Namespace) -> list[Row]:
    """The phases beside crowds of timers."""
    sizes = [(f"{size:,}", size, YEAR_S) for size in arguments.pending]
    most = max(arguments.pending)
    sizes.append((f"{most:,} of the next hour", most, HOUR_S))
    async with contextlib.AsyncExitStack() as stack:
        crowds = []
        for name, size, over_s in sizes:
            bench = await stack.enter_async_context(opened(None))
            crowds.append(Crowd(name, bench, size))
            await crowds[-1].gather(over_s)
        # The stores in memory stand for servers: the collector is not to look through them all the time.
        gc.collect()
        gc.freeze()
        for _ in range(arguments.rounds):
            for crowd in crowds:
                await crowd.measure(arguments.beside)
        gc.unfreeze()
    print(f"## Timers beside others, memory, {arguments.beside:,} keys\n")
    print(growth(crowds), flush=True)
    return [row for crowd in crowds for row in crowd.rows]


async def measure(arguments: argparse.Namespace) -> int:
    everything: list[Row] = []
    places = [] if arguments.no_memory else [None]
    for cassandra in [*places, *([arguments.cassandra] if arguments.cassandra else [])]:
        async with opened(cassandra) as bench:
            await bench.place.fill([])
            rows = await phases(bench, arguments.keys, arguments.lead, **WIDE)
            rows[-1].wrong["left"] = (await bench.look.left()).timers
            print(table(f"Timers, {bench.name}, {arguments.keys:,} keys", rows), flush=True)
            everything += rows
    if not arguments.no_memory:
        everything += await beside(arguments)
    return 1 if any(any(row.wrong.values()) for row in everything) else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.timers", description=__doc__)
    parser.add_argument("--cassandra", metavar="HOST:PORT", help="measure this one, too")
    parser.add_argument("--no-memory", action="store_true", help="leave out the stores in memory")
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--lead", type=float, default=10.0, help="seconds to set all that fire")
    parser.add_argument(
        "--pending", type=int, nargs="+", default=[1_000, 10_000, 1_000_000], metavar="TIMERS"
    )
    parser.add_argument("--rounds", type=int, default=3, help="beside them; the best counts")
    parser.add_argument("--beside", type=int, default=2_000, help="keys used beside them")
    return asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
