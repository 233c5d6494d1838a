"""``python -m benchmarks.reference``: messages with an ``id`` each, over Cassandra, beside prosody-events.

Both packages run the same script, each in a process of its own, over the same Kafka and the same Cassandra,
in turn: no-op handler, pipeline, Zipf(1.0) over 1,000 keys, one message in a hundred a copy of an earlier
one. The table shows medians of the rounds, and ratios to the reference at the same settings.
Exits with 1 when a run of ours lost, reordered or repeated something, or left something uncommitted; the
other's faults are shown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.dedup import work
from benchmarks.path.places import kafka_place
from benchmarks.stores.__main__ import drop

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.dedup import Work
    from benchmarks.path.places import Place

SCRIPT = Path(__file__).with_name("consume.py")
OURS, REFERENCE = "prosody-asyncio", "prosody-events"
SETTINGS: dict[str, dict[str, int]] = {
    "defaults": {},
    "max_uncommitted 8,192, max_concurrency 256": {
        "max_uncommitted": 8192, "max_concurrency": 256
    },
}  # fmt: skip
SLOW = 20
"""At its defaults the reference gets a part of the messages: it would take minutes for all."""
DEADLINE_S = 300.0


@dataclass(frozen=True)
class Row:
    """One run."""

    count: int
    seconds: float
    cpu_seconds: float
    faults: int

    @property
    def rate(self) -> float:
        return self.count / self.seconds

    @property
    def cpu_us(self) -> float:
        return self.cpu_seconds / self.count * 1e6


async def one(
    python: str, place: Place, what: Work, kafka: str, cassandra: str, keyspace: str, **options: Any
) -> Row:
    """One process that handles all messages of the place's present topic."""
    group = f"bench-reference-{uuid.uuid4().hex[:8]}"
    values = {
        "bootstrap_servers": kafka, "group_id": group, "subscribed_topics": place.topic,
        "source_system": "bench", "mode": "pipeline", "cassandra_nodes": cassandra,
        "cassandra_keyspace": keyspace, **options,
    }  # fmt: skip
    # Each interpreter has a package of this name of its own.
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    process = await asyncio.create_subprocess_exec(
        python, str(SCRIPT), "--options", json.dumps(values), "--expected", str(what.distinct),
        "--deadline", str(DEADLINE_S),
        stdout=asyncio.subprocess.PIPE, cwd=SCRIPT.parent, env=environment,
    )  # fmt: skip
    out, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"{python} {SCRIPT.name} failed with {process.returncode}")
    found = json.loads(out.splitlines()[-1])
    faults = found["order_faults"] + found["repeated"] + found["lost"]
    faults += await place.uncommitted(group)
    return Row(len(what.records), found["seconds"], found["cpu_seconds"], faults)


async def compare(arguments: argparse.Namespace) -> bool:
    """Print the table; whether every run of ours was right."""
    place = kafka_place(arguments.kafka)
    run = uuid.uuid4().hex[:8]
    keyspaces = {OURS: f"bench_ours_{run}", REFERENCE: f"bench_reference_{run}"}
    found: dict[tuple[str, str], list[Row]] = {}
    pythons = {OURS: sys.executable, REFERENCE: arguments.reference}
    try:
        for number in range(arguments.rounds):
            for setting, options in SETTINGS.items():
                for name, python in pythons.items():
                    slow = name == REFERENCE and not options
                    count = arguments.messages // (SLOW if slow else 1)
                    what = work(count, ids=True, distribution="zipf")
                    await place.fill(what.records)
                    row = await one(
                        python, place, what, arguments.kafka, arguments.cassandra,
                        keyspaces[name], **options,
                    )  # fmt: skip
                    found.setdefault((setting, name), []).append(row)
                    print(
                        f"round {number + 1}, {setting}, {name}: {row.rate:,.0f}/s", file=sys.stderr
                    )
    finally:
        for keyspace in keyspaces.values():
            drop(arguments.cassandra, keyspace)
    print(table(found, arguments.messages))
    return not any(row.faults for (_, name), rows in found.items() for row in rows if name == OURS)


def table(found: Mapping[tuple[str, str], Sequence[Row]], count: int) -> str:
    """Medians of the rounds."""
    lines = [
        f"## An id each over Cassandra, Kafka, Zipf(1.0) over 1,000 keys, {count:,} messages",
        "",
        "| | messages/s | of the reference | CPU us/message | faults |",
        "|---|---:|---:|---:|---:|",
    ]
    for (setting, name), rows in found.items():
        rate = statistics.median(row.rate for row in rows)
        beside = statistics.median(row.rate for row in found[setting, REFERENCE])
        cpu = statistics.median(row.cpu_us for row in rows)
        faults = sum(row.faults for row in rows)
        broken = "BROKEN " if faults else ""
        lines.append(
            f"| {broken}{name}, {setting} | {rate:,.0f} | {rate / beside:.1f} | {cpu:.0f} | {faults} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reference", description=__doc__)
    parser.add_argument("--kafka", metavar="HOST:PORT", required=True)
    parser.add_argument("--cassandra", metavar="HOST:PORT", required=True)
    parser.add_argument(
        "--reference",
        metavar="PYTHON",
        required=True,
        help="an interpreter that has prosody-events: python -m venv there; pip install prosody-events",
    )
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    return 0 if asyncio.run(compare(parser.parse_args())) else 1


if __name__ == "__main__":
    sys.exit(main())
