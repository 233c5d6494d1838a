"""``python -m benchmarks.timers``: timers set, moved, cancelled and fired per second, and beside a million.

A message a key, whose handler makes one timer call; a phase is over when all its messages are handled. The
first phase makes no call: what it costs is subtracted from the CPU of the others. At last every key sets a
timer for the same second, and they fire. The calls go through a context, the manager of the partition and
the store, and each is durable before it returns.

The same again beside 1,000, 10,000 and 1,000,000 timers that wait for some day of the coming year: an
operation may cost no more for them, and the manager may hold no more.

``--cassandra HOST:PORT`` measures the phases there too. Exits with 1 when a timer fired early, twice or
never, or was not there when it was asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
import sys
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from benchmarks.path.memory import resident_mb
from benchmarks.path.places import PARTITIONS
from benchmarks.path.work import value
from benchmarks.storing import GROUP, opened
from prosody.stores.protocol import Segment, StoredTimer, TimerKind

if TYPE_CHECKING:
    from benchmarks.storing import Bench

DEADLINE_S = 300.0
YEAR_S = 365 * 86_400
HOUR_S = 3_600
WIDE = {"max_concurrency": 256, "max_uncommitted": 2048}
"""Calls wait for the store; with the defaults of 32 and 64 most of that time would be idle."""
PHASES = (
    "nothing",
    "schedule",
    "schedule again",
    "scheduled",
    "clear_and_schedule",
    "unschedule",
    "fire",
)
"""In this sequence; ``unschedule`` removes the only one that is left."""


@dataclass(frozen=True)
class Row:
    """One phase."""

    name: str
    count: int
    seconds: float
    cpu_us: float
    """For each operation, what a message costs without a call apart."""
    note: str
    wrong: dict[str, int]

    @property
    def rate(self) -> float:
        return self.count / self.seconds


class Phases:
    """A handler that makes the call of the phase, and counts what is not as it must be."""

    def __init__(self, keys: int) -> None:
        self._keys = keys
        self._base = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=YEAR_S / 2)
        self.phase = PHASES[0]
        self.done = asyncio.Event()
        self.left = 0
        self.began = self.began_cpu = 0.0
        self.due = datetime.now(UTC)
        self.wrong: Counter[str] = Counter()
        self.fired: Counter[str] = Counter()
        self.late: list[float] = []

    def enter(self, phase: str) -> None:
        self.phase, self.left, self.began = phase, self._keys, 0.0
        self.done.clear()
        self.wrong = Counter()

    def _far(self, key: str, more: int = 0) -> datetime:
        """A time of its own for each key, about half a year ahead."""
        return self._base + timedelta(seconds=int(key[4:]) * 7919 % (YEAR_S // 4) + more)

    async def on_message(self, context: Any, message: Any) -> None:
        if not self.began:
            self.began, self.began_cpu = time.perf_counter(), time.process_time()
        key = message.key
        match self.phase:
            case "schedule":
                await context.schedule(self._far(key))
            case "schedule again":
                await context.schedule(self._far(key, 1))
            case "scheduled":
                expected = [self._far(key), self._far(key, 1)]
                self.wrong["not there"] += await context.scheduled() != expected
            case "clear_and_schedule":
                await context.clear_and_schedule(self._far(key, 2))
            case "unschedule":
                await context.unschedule(self._far(key, 2))
            case "fire":
                await context.schedule(self.due)
        self._one_done()

    async def on_timer(self, context: Any, timer: Any) -> None:
        late_s = time.time() - timer.time.timestamp()
        self.late.append(late_s)
        self.wrong["early"] += late_s < 0
        self.fired[timer.key] += 1
        self.wrong["again"] += self.fired[timer.key] > 1
        self._one_done()

    def _one_done(self) -> None:
        self.left -= 1
        if not self.left:
            self.done.set()


async def phases(bench: Bench, keys: int, lead_s: float, **options: Any) -> list[Row]:
    """All phases over ``keys`` keys.

    :param lead_s: how long before their second the timers that fire are set; all must be set by then.
    """
    handler = Phases(keys)
    records = [(b"key-%d" % n, value(n, 0)) for n in range(keys)]
    client = bench.client(**options)
    rows: list[Row] = []
    base_us = 0.0
    await client.subscribe(handler)
    try:
        for phase in PHASES:
            handler.enter(phase)
            if phase == "fire":
                second = math.ceil(time.time() + lead_s)
                handler.due = datetime.fromtimestamp(second, UTC)
            before = Counter(bench.stores.calls), bench.requests["sent"]
            await bench.place.append(records)
            await _wait(handler)
            seconds = time.perf_counter() - handler.began
            cpu_us = (time.process_time() - handler.began_cpu) / keys * 1e6
            calls = (bench.stores.calls - before[0]).total() / keys
            requests = (bench.requests["sent"] - before[1]) / keys
            if phase == "nothing":
                base_us = cpu_us
                continue
            note = f"{calls:.1f} store calls" + (f", {requests:.2f} requests" if requests else "")
            name = "schedule, all for one second" if phase == "fire" else phase
            rows.append(Row(name, keys, seconds, cpu_us - base_us, note, dict(handler.wrong)))
        rows.append(await _firing(handler, second, keys))
    finally:
        await client.shutdown()
    rows[-1].wrong["uncommitted"] = await bench.place.uncommitted(GROUP)
    return rows


async def _firing(handler: Phases, second: int, keys: int) -> Row:
    """Wait until all timers of ``second`` have fired."""
    handler.enter("firing")
    set_late = int(time.time() >= second)
    await asyncio.sleep(second - time.time() - 0.05)
    began_cpu = time.process_time()
    await _wait(handler)
    seconds = time.time() - second
    # A moment for a second firing, which must not come.
    await asyncio.sleep(0.5)
    late = sorted(handler.late)
    note = f"late: p50 {late[len(late) // 2]:.2f} s, max {late[-1]:.2f} s" if late else ""
    cpu_us = (time.process_time() - began_cpu) / keys * 1e6
    wrong = dict(handler.wrong) | {"never": keys - len(handler.fired), "set too late": set_late}
    return Row("fire", keys, seconds, cpu_us, note, wrong)


async def _wait(handler: Phases) -> None:
    try:
        async with asyncio.timeout(DEADLINE_S):
            await handler.done.wait()
    except TimeoutError:
        handler.wrong["never done"] += handler.left


async def beside(pending: int, keys: int) -> tuple[list[Row], float]:
    """The phases beside ``pending`` timers of the coming year; and the MiB that the client takes."""
    async with opened(None) as bench:
        await bench.place.fill([])
        now = int(time.time())
        store = bench.stores.inner.timers
        for number in range(pending):
            segment = Segment(GROUP, bench.place.topic, number % PARTITIONS)
            due = now + HOUR_S + number * 7919 % YEAR_S
            await store.add(segment, StoredTimer(due, TimerKind.APPLICATION, f"other-{number}", {}))
        gc.collect()
        # What is there for good is not looked through again and again, or its size would be measured.
        gc.freeze()
        before = resident_mb()
        rows = await phases(bench, keys, 3.0, **WIDE)
        taken = resident_mb() - before
        gc.unfreeze()
        left = (await bench.look.left()).timers - pending
        rows[-1].wrong["left"] = left
    return rows, taken


def table(title: str, rows: list[Row]) -> str:
    lines = [f"## {title}", "", "| | a second | CPU us each | | wrong |", "|---|---:|---:|---|---|"]
    for row in rows:
        wrong = ", ".join(f"{name} {n}" for name, n in row.wrong.items() if n)
        name = f"BROKEN {row.name}" if wrong else row.name
        lines.append(
            f"| {name} | {row.rate:,.0f} | {row.cpu_us:.1f} | {row.note} | {wrong or '0'} |"
        )
    return "\n".join(lines) + "\n"


def growth(sizes: list[int], found: list[tuple[list[Row], float]]) -> str:
    """CPU of each operation beside so many timers, as ratios to the first size."""
    head = " | ".join(f"beside {size:,}" for size in sizes)
    lines = [f"| CPU us each | {head} |", "|---|" + "---:|" * len(sizes)]
    for number, row in enumerate(found[0][0]):
        cells = [rows[number].cpu_us for rows, _ in found]
        shown = [f"{cpu_us:.1f} ({cpu_us / row.cpu_us:.2f} x)" for cpu_us in cells]
        broken = "BROKEN " if any(any(rows[number].wrong.values()) for rows, _ in found) else ""
        lines.append(f"| {broken}{row.name} | " + " | ".join(shown) + " |")
    taken = " | ".join(f"{mb:.1f}" for _, mb in found)
    lines.append(f"| MiB taken by the client | {taken} |")
    return "\n".join(lines) + "\n"


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
        found = []
        for size in arguments.pending:
            found.append(await beside(size, arguments.beside))
            everything += found[-1][0]
        print(f"## Timers beside others, memory, {arguments.beside:,} keys\n")
        print(growth(arguments.pending, found), flush=True)
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
    parser.add_argument("--beside", type=int, default=2_000, help="keys used beside them")
    return asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
