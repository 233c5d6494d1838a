"""``python -m benchmarks.tracking.floors``: what must not get slower, as ratios within one run. Part of CI.

The whole path is divided by the bare loop, the compiled core by the pure one. Ends with 1 when a ratio is
below its floor in three runs of three, with 2 when a run fails.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.tracking.runner import BenchmarkError
from benchmarks.tracking.verdict import TRIES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


What = tuple[object, ...]
Values = dict[What, float]


class Floor(NamedTuple):
    """The least value of a ratio."""

    what: What
    """What it is the ratio of, as the measurement calls it."""
    least: float
    text: str

    @property
    def words(self) -> str:
        return f"{self.text}: at least {self.least:g}"


def below(
    measure: Callable[[Sequence[Floor]], Values],
    floors: Sequence[Floor],
    tries: int = TRIES,
) -> list[str]:
    """What stays below its floor in each of the tries, in words. Prints what it sees.

    :param measure: makes one run for these floors; answers values by ``Floor.what``.
    """
    left = list(floors)
    for number in range(1, tries + 1):
        found = measure(left)
        for floor in left:
            value = found.get(floor.what)
            seen = "not measured" if value is None else f"{value:.3f}"
            print(f"try {number}: {floor.words}: {seen}", flush=True)
        left = [floor for floor in left if found.get(floor.what, 0.0) < floor.least]
        if not left:
            break
    return [f"BELOW ITS FLOOR in {tries} of {tries} tries: {floor.words}" for floor in left]


def main() -> int:
    from benchmarks.tracking import halves, path

    try:
        words = below(halves.measure, halves.FLOORS) + below(path.measure, path.FLOORS)
    except BenchmarkError as failed:
        print(failed, file=sys.stderr)
        return 2
    print(*(words or ["all floors hold"]), sep="\n")
    return int(bool(words))


if __name__ == "__main__":
    sys.exit(main())
