"""``python -m tests.simulation 1234`` replays a seed, with its history; ``--from 0 --to 5000`` searches.

A search prints the history of the first seed with a fault, and of each further one how to replay it.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from typing import TYPE_CHECKING

from tests.simulation.run import Verdict, simulate

if TYPE_CHECKING:
    from collections.abc import Callable


def main(
    simulate: Callable[[int], Verdict] = simulate, name: str = "python -m tests.simulation"
) -> int:
    """Replay or search; the exit code says whether a fault was found."""
    parser = argparse.ArgumentParser(prog=name, description=__doc__)
    parser.add_argument("seeds", type=int, nargs="*", help="seeds to replay, with their history")
    parser.add_argument("--from", dest="first", type=int, default=0, help="search from this seed")
    parser.add_argument("--to", dest="end", type=int, default=0, help="up to this one, without it")
    parser.add_argument("--quiet", action="store_true", help="no histories")
    options = parser.parse_args()
    failed = []
    for seed in options.seeds:
        verdict = simulate(seed)
        if not options.quiet:
            print(verdict.text())
        report(seed, verdict)
        if verdict.faults:
            failed.append(seed)
    began, starts, duplicates = time.monotonic(), 0, 0
    for seed in range(options.first, options.end):
        verdict = simulate(seed)
        starts += verdict.starts
        duplicates += verdict.duplicates
        if verdict.faults:
            if not (failed or options.quiet):
                print(verdict.text())
            failed.append(seed)
            report(seed, verdict)
            print(f"    replay with: {name} {seed}")
        if seed % 20 == 0:
            gc.collect()
    if count := options.end - options.first:
        took_s = time.monotonic() - began
        print(
            f"{count} seeds in {took_s:.1f} s, {1000 * took_s / count:.0f} ms each; "
            f"{starts} handler runs, {duplicates} duplicates; faults in {len(failed)}: {failed}"
        )
    return 1 if failed else 0


def report(seed: int, verdict: Verdict) -> None:
    """Say how a seed went."""
    print(
        f"seed {seed}: {len(verdict.history)} events, {verdict.starts} handler runs, "
        f"{verdict.duplicates} duplicates, {len(verdict.faults)} faults, "
        f"history {verdict.history.digest()[:16]}"
    )
    for fault in verdict.faults:
        print(f"    {fault}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
