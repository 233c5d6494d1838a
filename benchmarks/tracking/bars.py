"""What the core has to reach, whatever the stored run says.

A bar that is a ratio within one run fails the run that misses it. One in microseconds is shown only,
because a slow machine misses it with the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.tracking.results import COMPILED, COMPILED_SCAN, PURE, PURE_SCAN, SIDES, Case

if TYPE_CHECKING:
    from benchmarks.tracking.results import Seconds

SMALL, USUAL, LARGE = 64, 8_192, 100_000


@dataclass(frozen=True)
class Bar:
    """``side`` of ``operation`` at ``n``, alone (in us) or against another size or side."""

    structure: str
    operation: str
    side: str
    limit: float
    n: int = USUAL
    grows_from: int | None = None
    """Then the value is the cost at ``n`` over the cost at this size; at most ``limit``."""
    against: str | None = None
    """Then the value is how many times faster than this side; at least ``limit``."""

    @property
    def fails(self) -> bool:
        """Whether missing it fails the run."""
        return self.grows_from is not None or self.against is not None

    @property
    def text(self) -> str:
        who = f"{self.structure}: {self.operation}, {SIDES[self.side]}"
        if self.grows_from is not None:
            return (
                f"{who}, n from {self.grows_from:,} to {self.n:,}: grows at most {self.limit:g} x"
            )
        if self.against is not None:
            return (
                f"{who}, n = {self.n:,}: at least {self.limit:g} x as fast as {SIDES[self.against]}"
            )
        return f"{who}, n = {self.n:,}: at most {self.limit:g} us"

    @property
    def cases(self) -> list[Case]:
        sizes = [self.n] if self.grows_from is None else [self.grows_from, self.n]
        return [Case(self.structure, self.operation, n) for n in sizes]

    def value(self, seconds: Seconds) -> float | None:
        """What was measured, in the unit of ``limit``; None when a benchmark it needs was not run."""
        try:
            cost = seconds[self.cases[-1]][self.side]
            if self.grows_from is not None:
                return cost / seconds[self.cases[0]][self.side]
            if self.against is not None:
                return seconds[self.cases[0]][self.against] / cost
        except KeyError:
            # Not measured is an answer of its own, and counts as missed.
            return None
        return cost * 1e6

    def met(self, seconds: Seconds) -> bool:
        value = self.value(seconds)
        if value is None:
            return False
        return value >= self.limit if self.against is not None else value <= self.limit


HEAP = ("virtual-time heap", "select and charge")
QUEUE = ("key queue", "push pop done among ready keys")
TRACKER = ("offset tracker", "admit complete in any order (consecutive)")

BARS = [
    Bar(*HEAP, COMPILED, 2.0),
    Bar(*HEAP, PURE, 20.0),
    *(Bar(*HEAP, side, 4.0, LARGE, grows_from=SMALL) for side in (COMPILED, PURE)),
    Bar(*HEAP, COMPILED, 20.0, against=COMPILED_SCAN),
    Bar(*HEAP, PURE, 100.0, against=PURE_SCAN),
    Bar(*QUEUE, COMPILED, 0.3),
    Bar(*TRACKER, COMPILED, 0.3),
    *(
        Bar(*what, side, 4.0, LARGE, grows_from=SMALL)
        for what in (QUEUE, TRACKER)
        for side in (COMPILED, PURE)
    ),
]
