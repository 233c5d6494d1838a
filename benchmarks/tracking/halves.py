"""The floors of the core: how many times faster than the pure half the compiled one is, in one run.

One operation of each structure, that of every message. Each floor is about 0.6 of what was measured: in a
short run on a shared machine the ratios wander by a third. ``benchmarks.tracking`` compares all operations
with a stored run, by longer runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.tracking.floors import Floor
from benchmarks.tracking.results import Case, Measured, ratios
from benchmarks.tracking.runner import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.tracking.floors import Values, What

RATIO: Final = "pure / compiled"
SECONDS_EACH: Final = 0.2
TESTS: Final[dict[What, tuple[str, float]]] = {
    Case("key queue", "push pop done of an idle key", None): (
        "bench_key_queue.py::test_push_pop_done_of_an_idle_key", 1.8
    ),
    Case("offset tracker", "admit complete in order", 1024): (
        "bench_offset_tracker.py::test_admit_complete_in_order", 2.7
    ),
    Case("virtual-time heap", "select and charge of fresh keys", 1024): (
        "bench_vtime_heap.py::test_select_and_charge_of_fresh_keys", 4.5
    ),
    Case("rolling window", "begin end", 1024): (
        "bench_rolling_window.py::test_begin_end", 4.5
    ),
    Case("rolling window", "begin end evict", 1024): (
        "bench_rolling_window.py::test_begin_end_evict", 4.0
    ),
    Case("event lines", "attempt that ended well", None): (
        "bench_event_lines.py::test_attempt_that_ended_well", 2.9
    ),
    Case("many records", "frame for kafka", None): (
        "bench_many_records.py::test_frame_for_kafka", 6.0
    ),
}  # fmt: skip
"""The test that measures a case, and the least ratio."""

FLOORS: Final = tuple(Floor(case, least, f"{case}, {RATIO}") for case, (_, least) in TESTS.items())


def measure(floors: Sequence[Floor]) -> Values:
    """One run of what these floors need.

    :raises BenchmarkError: it did not run to its end.
    """
    tests = [f"benchmarks/{TESTS[floor.what][0]}" for floor in floors]
    measured = Measured()
    measured.add(run(dict.fromkeys(tests), SECONDS_EACH))
    found = ratios(measured.seconds)
    return {case: value for (case, ratio), value in found.items() if ratio == RATIO}
