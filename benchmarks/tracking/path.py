"""The floors of the whole path: shares of the bare loop's throughput.

Both halves of the core, each in a process of its own with its own baseline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.tracking.floors import Floor
from benchmarks.tracking.results import COMPILED, PURE, SIDES
from benchmarks.tracking.runner import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.tracking.floors import Values
    from benchmarks.tracking.results import Document

BENCH: Final = "benchmarks/path/bench_path.py"
BARE: Final = "bare"
SECONDS_EACH: Final = 10.0


def floor(half: str, contestant: str, share: float) -> Floor:
    return Floor((half, contestant), share, f"{contestant}, {SIDES[half]} half, of the bare loop")


FLOORS: Final = (
    floor(COMPILED, "best-effort", 0.17),
    floor(COMPILED, "pipeline", 0.14),
    floor(PURE, "pipeline", 0.07),
)
"""Those of DESIGN section 5, telemetry events on."""


def shares(document: Document) -> Values:
    """Throughput over the bare loop's of the same run, by half and contestant."""
    least: dict[tuple[str, str], float] = {}
    for benchmark in document["benchmarks"]:
        info = benchmark["extra_info"]
        least[info["half"], info["contestant"]] = benchmark["stats"]["min"]
    bare = {half: took for (half, contestant), took in least.items() if contestant == BARE}
    return {(half, who): bare[half] / took for (half, who), took in least.items() if who != BARE}


def measure(floors: Sequence[Floor]) -> Values:
    """A run of each half that has one of these floors.

    :raises BenchmarkError: one did not run to its end.
    """
    found: Values = {}
    for half in dict.fromkeys(floor.what[0] for floor in floors):
        pure = "1" if half == PURE else ""
        found |= shares(run([BENCH], SECONDS_EACH, {"PROSODY_PURE_PYTHON": pure}))
    return found
