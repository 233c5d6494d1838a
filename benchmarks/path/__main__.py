"""``python -m benchmarks.path``: messages/s and CPU of the whole path, as ratios to baselines.

Rounds are interleaved (A B C, A B C, ...), because shared machines drift; the table shows the median of
the ratios round by round. Exits with 1 when a run lost, repeated, reordered or did not commit something.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.path.contestants import Contestant, bare, client, unordered
from benchmarks.path.places import Place, kafka_place, memory_place
from benchmarks.path.work import Row, records

if TYPE_CHECKING:
    from collections.abc import Sequence


async def rounds(
    place: Place,
    contestants: Sequence[Contestant],
    *,
    count: int,
    keys: str,
    distinct: int,
    delay_s: float,
    times: int,
) -> list[list[Row]]:
    """``times`` rounds of every contestant over the same records."""
    work = records(keys, count, distinct)
    found = []
    for _ in range(times):
        one_round = []
        for contestant in contestants:
            await place.fill(work)
            one_round.append(await contestant(place, count, f"{keys} {distinct}", delay_s))
        found.append(one_round)
    return found


def table(title: str, found: list[list[Row]]) -> tuple[str, list[dict[str, object]]]:
    """Medians over the rounds; ratios against the first contestant of the same round."""
    lines = [
        f"## {title}",
        "",
        "| | messages/s | CPU us/message | ratio to the first | order faults | lost | uncommitted |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    results: list[dict[str, object]] = []
    for column in range(len(found[0])):
        rows = [one_round[column] for one_round in found]
        ratio = statistics.median(r[column].rate / r[0].rate for r in found)
        rate = statistics.median(r.rate for r in rows)
        cpu = statistics.median(r.cpu_us for r in rows)
        faults = [r.order_faults for r in rows if r.order_faults is not None]
        left = [r.uncommitted for r in rows if r.uncommitted is not None]
        broken = "BROKEN " if any(r.fault for r in rows) else ""
        lines.append(
            f"| {broken}{rows[0].name} | {rate:,.0f} | {cpu:.2f} | {ratio:.2f} "
            f"| {sum(faults) if faults else '-'} | {sum(r.lost for r in rows)} "
            f"| {sum(left) if left else '-'} |"
        )
        results.append(
            {
                "title": title,
                "name": rows[0].name,
                "keys": rows[0].keys,
                "rate": rate,
                "cpu_us": cpu,
                "ratio": ratio,
                "broken": bool(broken),
            }
        )
    return "\n".join(lines) + "\n", results


async def measure(arguments: argparse.Namespace) -> list[dict[str, object]]:
    place = kafka_place(arguments.kafka) if arguments.kafka else memory_place()
    count, times = arguments.messages, arguments.rounds
    results: list[dict[str, object]] = []
    for keys in arguments.keys:
        title = f"{place.name}, no-op handler, default options, {keys} keys"
        found = await rounds(
            place,
            [bare, client("best-effort"), client("pipeline")],
            count=count,
            keys=keys,
            distinct=1000,
            delay_s=0.0,
            times=times,
        )
        text, rows = table(title, found)
        print(text, flush=True)
        results += rows
    if arguments.waiting:
        wide = {"max_concurrency": 256, "max_uncommitted": 2048}
        found = await rounds(
            place,
            [unordered(256), client("best-effort", **wide), client("pipeline", **wide)],
            count=arguments.waiting,
            keys="uniform",
            distinct=10_000,
            delay_s=0.010,
            times=times,
        )
        text, rows = table(f"{place.name}, handlers that wait 10 ms, 10,000 keys", found)
        print(text, flush=True)
        results += rows
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.path", description=__doc__)
    parser.add_argument("--kafka", metavar="HOST:PORT", help="a real Kafka (default: embedded)")
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument(
        "--waiting", type=int, default=40_000, help="messages of the 10 ms runs; 0: none"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keys", nargs="+", default=["uniform", "zipf"])
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    results = asyncio.run(measure(arguments))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    return 1 if any(r["broken"] for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
