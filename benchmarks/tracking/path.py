"""``python -m benchmarks.tracking.path``: the whole path against its floors, as ratios to the bare loop.

Both halves of the core, each in a process of its own with its own baseline. Ends with 1 when a ratio is
below its floor in three runs of three, with 2 when a run fails.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.tracking.results import COMPILED, PURE, SIDES
from benchmarks.tracking.runner import BenchmarkError, run
from benchmarks.tracking.verdict import TRIES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.tracking.results import Document

BENCH: Final = "benchmarks/path/bench_path.py"
BARE: Final = "bare"
SECONDS_EACH: Final = 10.0


class Floor(NamedTuple):
    """The least share of the bare loop's throughput."""

    half: str
    contestant: str
    share: float

    @property
    def text(self) -> str:
        return (
            f"{self.contestant}, {SIDES[self.half]} half: at least {self.share:g} of the bare loop"
        )


FLOORS: Final = (
    Floor(COMPILED, "best-effort", 0.17),
    Floor(COMPILED, "pipeline", 0.14),
    Floor(PURE, "pipeline", 0.07),
)
"""Those of DESIGN section 5, telemetry events on."""

Shares = dict[tuple[str, str], float]
"""Throughput over the bare loop's of the same run, by half and contestant."""


def shares(document: Document) -> Shares:
    """What a run of one half shows."""
    least: Shares = {}
    for benchmark in document["benchmarks"]:
        info = benchmark["extra_info"]
        least[info["half"], info["contestant"]] = benchmark["stats"]["min"]
    bare = {half: took for (half, contestant), took in least.items() if contestant == BARE}
    return {(half, who): bare[half] / took for (half, who), took in least.items() if who != BARE}


def measure(half: str) -> Shares:
    """One run of a half.

    :raises BenchmarkError: it did not run to its end.
    """
    return shares(run([BENCH], SECONDS_EACH, {"PROSODY_PURE_PYTHON": "1" if half == PURE else ""}))


def below(
    measure: Callable[[str], Shares], floors: Sequence[Floor] = FLOORS, tries: int = TRIES
) -> list[str]:
    """What stays below its floor in each of the tries, in words. Prints what it sees."""
    left = list(floors)
    for number in range(1, tries + 1):
        found: Shares = {}
        for half in dict.fromkeys(floor.half for floor in left):
            found |= measure(half)
        for floor in left:
            share = found.get((floor.half, floor.contestant))
            seen = "not measured" if share is None else f"{share:.3f}"
            print(f"try {number}: {floor.text}: {seen}", flush=True)
        left = [f for f in left if found.get((f.half, f.contestant), 0.0) < f.share]
        if not left:
            break
    return [f"BELOW ITS FLOOR in {tries} of {tries} tries: {floor.text}" for floor in left]


def main() -> int:
    try:
        words = below(measure)
    except BenchmarkError as failed:
        print(failed, file=sys.stderr)
        return 2
    print(*(words or ["all floors hold"]), sep="\n")
    return int(bool(words))


if __name__ == "__main__":
    sys.exit(main())
