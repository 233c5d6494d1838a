"""``python -m benchmarks.compare``: ours beside everything else that a Python program could pick.

Starts nothing: ``make bench-compare-peers`` starts the servers. Makes an environment for each rival, runs
every row for every entrant in turn, round after round, and writes ``peers.md``, ``peers.json`` and
``peers.svg``. Exits with 1 when a run has a fault of what its entrant promises, or when a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import prosody._core
from benchmarks.compare import report
from benchmarks.compare.bars import bars
from benchmarks.compare.environments import ROOT, Environments
from benchmarks.compare.rivals import RIVALS
from benchmarks.compare.runs import Runner
from benchmarks.compare.works import chosen, in_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.compare.outcome import Outcome
    from benchmarks.compare.works import Case

OUT = ROOT / "docs" / "benchmarks"
PART = ROOT / ".cache" / "peers-part"
"""A smoke run or some rows must not take the place of the whole."""
NAME = "peers"


async def measure(
    runner: Runner, cases: Sequence[Case], rounds: int, after_round: Callable[[int], None]
) -> None:
    """Round after round, each case for each entrant in turn.

    :param after_round: told how many rounds there are.
    """
    await runner.warm_up()
    began_at = time.monotonic()
    for number in range(rounds):
        for case in cases:
            for entrant, count in in_turn(case, number, rounds):
                outcome = await runner.run(case, entrant, count, number)
                if outcome is not None:
                    elapsed_s = time.monotonic() - began_at
                    print(f"{elapsed_s:6.0f} s  {_line(outcome)}", file=sys.stderr, flush=True)
        after_round(number + 1)


def _line(outcome: Outcome) -> str:
    parts = [f"round {outcome.round + 1} ({outcome.case}) {outcome.entrant.name}:"]
    if outcome.rate:
        parts.append(f"{outcome.rate:,.0f}/s")
    for figure in ("p99_s", "join_pause_s", "leave_pause_s"):
        value = outcome.figure(figure)
        if value is not None:
            parts.append(f"{figure.removesuffix('_s').replace('_', ' ')} {value * 1e3:,.1f} ms")
    if outcome.broken:
        parts.append(f"{report.BROKEN}: {'; '.join(outcome.broken)}")
    return " ".join(parts)


def about(arguments: argparse.Namespace, rounds: int) -> dict[str, str]:
    """Where and how it was measured."""
    return {
        "made": datetime.now(UTC).date().isoformat(),
        "command": "make bench-compare-peers" + (" ARGS=--quick" if arguments.quick else ""),
        "rounds": str(rounds),
        "Python": platform.python_version(),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        "shared with the servers",
        "servers": f"Java options {os.environ.get('JDK_JAVA_OPTIONS') or 'none'}",
        "core": prosody._core.IMPLEMENTATION,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument(
        "--kafka", metavar="HOST:PORT", default=os.environ.get("PROSODY_TEST_KAFKA")
    )
    parser.add_argument(
        "--cassandra", metavar="HOST:PORT", default=os.environ.get("PROSODY_TEST_CASSANDRA")
    )
    parser.add_argument("--rounds", type=int, help="3, or 1 with --quick")
    parser.add_argument("--rows", nargs="+", default=[], choices=list("abcdefghij"), metavar="ROW")
    parser.add_argument(
        "--quick", action="store_true", help="few messages: only shows that it runs"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of the page; docs/benchmarks, or .cache/peers-part for a part",
    )
    arguments = parser.parse_args()
    if not arguments.kafka or not arguments.cassandra:
        parser.error("--kafka and --cassandra, or make bench-compare-peers, which starts them")
    whole = not arguments.quick and not arguments.rows
    arguments.out = arguments.out or (OUT if whole else PART)
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 3)

    environments = Environments()
    print("installing the rivals", file=sys.stderr, flush=True)
    environments.prepare(list(RIVALS.values()))
    for name, reason in environments.missing.items():
        print(f"missing: {name}: {reason}", file=sys.stderr)
    cases = chosen(arguments.rows, quick=arguments.quick)
    runner = Runner(environments, arguments.kafka, arguments.cassandra)

    def after_round(rounds: int) -> None:
        # Each time: what a long run has shown is not lost when it ends early.
        write(arguments, rounds, cases, runner.outcomes, environments.missing)

    try:
        asyncio.run(measure(runner, cases, arguments.rounds, after_round))
    finally:
        runner.clean()
    print((arguments.out / f"{NAME}.md").read_text(encoding="utf-8"))
    lines = report.wrong(runner.outcomes)
    # A smoke run is too short for a bar, and some rows lack what others need.
    shortfalls = report.missed(bars(), runner.outcomes) if whole else []
    print(*(lines or ["no faults"]), *shortfalls, sep="\n")
    return int(bool(lines or shortfalls))


def write(
    arguments: argparse.Namespace,
    rounds: int,
    cases: Sequence[Case],
    outcomes: Sequence[Outcome],
    missing: dict[str, str],
) -> None:
    """The page, the figures and the picture."""
    from benchmarks.compare.pictures import draw

    facts = about(arguments, rounds)
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = report.page(facts, cases, bars(), outcomes, missing, f"{NAME}.svg")
    (arguments.out / f"{NAME}.md").write_text(text, encoding="utf-8")
    figures = report.as_json(facts, bars(), outcomes, missing)
    (arguments.out / f"{NAME}.json").write_text(figures, encoding="utf-8")
    draw(outcomes, arguments.out / f"{NAME}.svg")


if __name__ == "__main__":
    sys.exit(main())
