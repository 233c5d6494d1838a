"""The floors of the core: how many times faster than the pure half the compiled one is, in one run.

One operation of each structure, that of every message. Each floor is about 0.6 of what was measured: in a
short run on a shared machine the ratios wander by a third. ``benchmarks.tracking`` compares all operations
with a stored run, by longer runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.tracking.floors import Floor
from benchmarks.tracking.results import COMPILED, PURE, Case, Measured, benchmark_of, ratios
from benchmarks.tracking.runner import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.tracking.floors import Values

RATIO: Final = "pure / compiled"
SECONDS_EACH: Final = 0.2

FLOORS: Final = tuple(
    Floor(case, least, f"{case}, {RATIO}")
    for case, least in (
        (Case("admission", "admit", None), 1.3),
        (Case("admission", "first step", None), 1.6),
        (Case("fetched", "read", None), 6.0),
        (Case("key queue", "push pop done of an idle key", None), 1.8),
        (Case("offset tracker", "admit complete in order", 1024), 2.7),
        (Case("virtual-time heap", "select and charge of fresh keys", 1024), 4.5),
        (Case("rolling window", "begin end", 1024), 4.5),
        (Case("rolling window", "begin end evict", 1024), 4.0),
        (Case("event lines", "attempt that ended well", None), 2.9),
        (Case("many records", "frame for kafka", None), 6.0),
    )
)


def measure(floors: Sequence[Floor]) -> Values:
    """One run of what these floors need.

    :raises BenchmarkError: it did not run to its end.
    """
    cases = [Case(*floor.what) for floor in floors]  # type: ignore[arg-type]  # one, as a tuple
    measured = Measured()
    measured.add(
        run([benchmark_of(case, half) for case in cases for half in (COMPILED, PURE)], SECONDS_EACH)
    )
    found = ratios(measured.seconds)
    return {case: value for (case, ratio), value in found.items() if ratio == RATIO}
