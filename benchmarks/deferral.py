"""``python -m benchmarks.deferral``: a storm of deferred keys, from the first failure until all is done.

Keys fail until every one of them has: its first message is deferred, and the later ones are stored behind
it. Then all recover at once. The same messages without failures are run before, over the same stores. CPU
and store calls of both are compared; seconds are no speed, because many of them are waits for the next try.

``--cassandra HOST:PORT`` measures that one too. Exits with 1 when a run lost, repeated or reordered
something, began a retry before its time, or left something in the stores.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.path.work import value
from benchmarks.storing import GROUP, opened

if TYPE_CHECKING:
    from benchmarks.storing import Bench

DEADLINE_S = 600.0
DEFER_BASE_S = 1.0
FIRST_WAIT_MIN_S = DEFER_BASE_S / 2
"""A first retry waits for at least half of ``defer_base``: its jitter reaches down to that."""
STEADY = "steady"
"""Keys that come before the storm and do not fail."""


class Storm:
    """A handler that fails until every key has failed, and checks the run that is timed."""

    def __init__(self, expected: int, failing: int) -> None:
        """:param failing: keys that must have failed before all recover; 0 for none."""
        self.expected = expected
        self.handled = self.attempts = self.faults = self.repeats = self.early = 0
        self.began = self.began_cpu = self.ended = self.ended_cpu = 0.0
        self.recovered_at = 0.0
        self.done = asyncio.Event()
        self._failing = failing
        self._next: defaultdict[str, int] = defaultdict(int)
        self._failed_at: dict[str, float] = {}

    async def on_message(self, context: Any, message: Any) -> None:
        if message.key.startswith(STEADY):
            return
        now = time.perf_counter()
        if not self.began:
            self.began, self.began_cpu = now, time.process_time()
            self.recovered_at = now
        self.attempts += 1
        key, seq = message.key, message.payload["seq"]
        failed_at = self._failed_at.get(key) if seq == 0 else None
        if failed_at is not None and now - failed_at < FIRST_WAIT_MIN_S:
            self.early += 1
        if seq != self._next[key]:
            # A follower that came before its head, or something that was done already.
            if seq > self._next[key]:
                self.faults += 1
            else:
                self.repeats += 1
        if len(self._failed_at) < self._failing:
            self._failed_at[key] = self.recovered_at = now
            raise ConnectionError("down for a while")
        self._next[key] = seq + 1
        self.handled += 1
        if self.handled == self.expected:
            self.ended, self.ended_cpu = time.perf_counter(), time.process_time()
            self.done.set()


@dataclass(frozen=True)
class Row:
    """One measured run."""

    name: str
    messages: int
    seconds: float
    after_s: float
    """From the last first failure to the end of the last message."""
    cpu_s: float
    attempts: int
    calls: int
    requests: int
    wrong: dict[str, int]

    @property
    def cpu_us(self) -> float:
        return self.cpu_s / self.messages * 1e6


async def run(bench: Bench, keys: int, each: int, fails: bool) -> Row:
    """``keys`` keys with ``each`` messages, in rounds: all heads come first."""
    count = keys * each
    steady = [(b"%s-%d" % (STEADY.encode(), n), value(n, 0)) for n in range(40)]
    storm = [(b"key-%d" % (i % keys), value(i, i // keys)) for i in range(count)]
    await bench.place.fill(steady + storm)
    handler = Storm(count, keys if fails else 0)
    # Nearly all fail, and are to be deferred all the same: the gate closes only when all do.
    options = {"defer_base": DEFER_BASE_S, "defer_failure_threshold": 1.0}
    # What follows the last message, such as the removal of its timer, is part of the calls.
    async with bench.subscribed(handler, **options):
        try:
            async with asyncio.timeout(DEADLINE_S):
                await handler.done.wait()
        except TimeoutError:
            handler.ended, handler.ended_cpu = time.perf_counter(), time.process_time()
    calls, requests = dict(bench.stores.calls), bench.requests["sent"]
    print(f"<!-- {bench.name}, calls: {calls} -->", flush=True)
    return Row(
        f"{bench.name}, {'all keys fail' if fails else 'no failures'}",
        count,
        handler.ended - handler.began,
        handler.ended - handler.recovered_at,
        handler.ended_cpu - handler.began_cpu,
        handler.attempts,
        sum(calls.values()),
        requests,
        {
            "lost": count - handler.handled,
            "order": handler.faults,
            "repeated": handler.repeats,
            "early": handler.early,
            "uncommitted": await bench.place.uncommitted(GROUP),
            "left": sum(await bench.look.left()),
        },
    )


def table(rows: list[Row]) -> str:
    lines = [
        "| | done after | after the outage | messages/s of that | CPU us/message | CPU ratio | attempts | "
        "store calls/message | requests/message | wrong |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row, first in zip(rows, [rows[n - n % 2] for n in range(len(rows))], strict=True):
        wrong = ", ".join(f"{name} {n}" for name, n in row.wrong.items() if n)
        name = f"BROKEN {row.name}" if wrong else row.name
        requests = f"{row.requests / row.messages:.2f}" if row.requests else "-"
        lines.append(
            f"| {name} | {row.seconds:.2f} s | {row.after_s:.2f} s | {row.messages / row.after_s:,.0f} "
            f"| {row.cpu_us:.1f} | {row.cpu_us / first.cpu_us:.1f} | {row.attempts:,} "
            f"| {row.calls / row.messages:.2f} | {requests} | {wrong or '0'} |"
        )
    return "\n".join(lines)


async def measure(arguments: argparse.Namespace) -> int:
    rows: list[Row] = []
    places = [] if arguments.no_memory else [None]
    for cassandra in [*places, *([arguments.cassandra] if arguments.cassandra else [])]:
        for fails in (False, True):
            async with opened(cassandra) as bench:
                rows.append(await run(bench, arguments.keys, arguments.each, fails))
    print(f"## Deferral, {arguments.keys:,} keys with {arguments.each} messages each\n")
    print(table(rows), flush=True)
    return 1 if any(any(row.wrong.values()) for row in rows) else 0


def main() -> int:
    # Lines about failures are made, and limited, but not written.
    log = logging.getLogger("prosody")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deferral", description=__doc__)
    parser.add_argument("--cassandra", metavar="HOST:PORT", help="measure this one, too")
    parser.add_argument("--no-memory", action="store_true", help="leave out the stores in memory")
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--each", type=int, default=3, help="messages of each key")
    return asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
