"""``python -m benchmarks.rebalance --kafka HOST:PORT``: what others cost those who take no part in it.

First: how long partitions that stay with their member stand still while another member joins and leaves
and 10 s handlers run elsewhere, with the cooperative assignor and with an eager one. Then: what one hot
key with slow handlers costs other keys. Members are processes of their own; rounds are interleaved.
Exits with 1 when a run lost, repeated or reordered something.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.rebalance import hot_key, pauses
from prosody.broker.kafka.consumer import HEARTBEAT_S
from prosody.config.options import DEFAULT_MAX_UNCOMMITTED

if TYPE_CHECKING:
    from collections.abc import Sequence

ASSIGNORS = ("cooperative", "sticky")
LIMITS = (1024, DEFAULT_MAX_UNCOMMITTED)
"""``max_uncommitted``: the hot key's queue never reaches the first; the second it does."""


def pauses_table(found: Sequence[pauses.Pauses]) -> str:
    lines = [
        f"## Longest pause of a partition that stays, {pauses.SLOW_S:g} s handlers elsewhere, "
        f"heartbeat interval {HEARTBEAT_S:g} s",
        "",
        "| | usual | a member joins | a member leaves |",
        "|---|---:|---:|---:|",
    ]
    for assignor in ASSIGNORS:
        rows = [row for row in found if row.assignor == assignor]
        broken = "BROKEN " if any(row.faults for row in rows) else ""
        cells = " | ".join(
            f"{statistics.median(values):.2f} s (most {max(values):.2f})"
            for values in ([r.usual for r in rows], [r.join for r in rows], [r.leave for r in rows])
        )
        lines.append(f"| {broken}{assignor} | {cells} |")
    return "\n".join(lines) + "\n"


def hot_table(found: Sequence[hot_key.Cost]) -> str:
    lines = [
        f"## One hot key, {hot_key.HOT_S * 1e3:g} ms handlers, {hot_key.HOT_RATE:g} records/s: "
        "from send to handler for other keys, ms",
        "",
        "| | p50 without | with | p99 without | with | ratio of the p50 | of the p99 |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for limit in LIMITS:
        without = [row for row in found if row.max_uncommitted == limit and not row.hot]
        with_it = [row for row in found if row.max_uncommitted == limit and row.hot]
        broken = "BROKEN " if any(row.faults for row in (*without, *with_it)) else ""
        for field, name in (
            ("other_partitions", "other partitions"),
            ("same_partition", "its own partition"),
        ):
            cells, ratios = [], []
            for quantile in ("p50", "p99"):
                pair = [
                    (getattr(getattr(a, field), quantile), getattr(getattr(b, field), quantile))
                    for a, b in zip(without, with_it, strict=True)
                ]
                cells += [f"{statistics.median(column):.1f}" for column in zip(*pair, strict=True)]
                ratios.append(f"{statistics.median(b / a for a, b in pair):.2f}")
            text = " | ".join([*cells, *ratios])
            lines.append(f"| {broken}`max_uncommitted` {limit}, {name} | {text} |")
    return "\n".join(lines) + "\n"


async def measure(bootstrap: str, rounds: int) -> tuple[list[pauses.Pauses], list[hot_key.Cost]]:
    still: list[pauses.Pauses] = []
    costs: list[hot_key.Cost] = []
    for number in range(rounds):
        for assignor in ASSIGNORS:
            with tempfile.TemporaryDirectory(prefix="prosody-rebalance-") as folder:
                still.append(await pauses.measure(Path(folder), bootstrap, assignor))
            print(f"round {number + 1}: {still[-1]}", flush=True)
        for limit in LIMITS:
            for hot in (False, True):
                with tempfile.TemporaryDirectory(prefix="prosody-rebalance-") as folder:
                    costs.append(await hot_key.measure(Path(folder), bootstrap, limit, hot))
                print(f"round {number + 1}: {costs[-1]}", flush=True)
    return still, costs


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rebalance", description=__doc__)
    parser.add_argument("--kafka", metavar="HOST:PORT", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    still, costs = asyncio.run(measure(arguments.kafka, arguments.rounds))
    print()
    print(pauses_table(still))
    print(hot_table(costs))
    if arguments.json:
        figures: dict[str, Any] = {
            "heartbeat_s": HEARTBEAT_S,
            "pauses_s": [row._asdict() for row in still],
            "hot_key_ms": [
                {
                    **row._asdict(),
                    "same_partition": row.same_partition._asdict(),
                    "other_partitions": row.other_partitions._asdict(),
                }
                for row in costs
            ],
        }
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if any(row.faults for row in still) or any(row.faults for row in costs) else 0


if __name__ == "__main__":
    sys.exit(main())
