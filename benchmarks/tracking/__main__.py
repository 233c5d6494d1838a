"""``python -m benchmarks.tracking``: the core's benchmarks against the stored run, by ratios.

Seconds of two runs are never compared: a shared machine is twice as slow now and then. The ratio of the
two halves within one run stays, so one that falls says that the compiled half lost ground. Ends with 1
when a ratio fell or is missing or a bar is missed after three tries, with 2 when nothing could be
compared: no stored run, or a benchmark that fails.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from benchmarks.tracking import report
from benchmarks.tracking.bars import BARS
from benchmarks.tracking.results import Measured, Run
from benchmarks.tracking.runner import ROOT, BenchmarkError, about, bench_files, run
from benchmarks.tracking.verdict import TRIES, faults, tried

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from benchmarks.tracking.results import Document

STORED = ROOT / "benchmarks" / "stored" / "core.json"
LATEST = ROOT / ".benchmarks" / "core.json"
PAGE = ROOT / "docs" / "benchmarks" / "core.md"
PICTURE = PAGE.with_suffix(".svg")
SECONDS_EACH = 0.2


def store(measure: Callable[[Iterable[str]], Document]) -> list[str]:
    """Measure everything as often as a comparison may try, keep it, and say which bars it misses."""
    measured = Measured()
    for _ in range(TRIES):
        measured.add(measure(bench_files()))
    made = Run(about(measured.last, "make bench-compare ARGS=--store"), measured.seconds)
    STORED.parent.mkdir(parents=True, exist_ok=True)
    STORED.write_text(made.to_json(), encoding="utf-8")
    print(report.costs(made.seconds), report.bars(BARS, made.seconds), sep="\n")
    return faults([], BARS, made.seconds)[0]


def check(measure: Callable[[Iterable[str]], Document], stored: Run) -> list[str]:
    """Measure, compare with ``stored``, print both tables, keep the run, and say what fails."""
    measured, rows, words = tried(measure, bench_files(), stored.seconds, BARS)
    made = Run(about(measured.last, "make bench-compare"), measured.seconds)
    LATEST.parent.mkdir(parents=True, exist_ok=True)
    LATEST.write_text(made.to_json(), encoding="utf-8")
    print(report.comparison(rows), report.bars(BARS, made.seconds), sep="\n")
    for fact in ("processor", "Python"):
        if made.about[fact] != stored.about[fact]:
            print(
                f"note: stored on {stored.about[fact]}, this is {made.about[fact]}; ratios differ a little"
            )
    return words


def document(stored: Run) -> None:
    """The page and the picture of the stored run; the same run makes the same bytes."""
    from benchmarks.tracking.picture import draw

    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(report.page(stored, BARS, PICTURE.name), encoding="utf-8")
    draw(stored.seconds, PICTURE)


def main() -> int:
    options = argparse.ArgumentParser(prog="benchmarks.tracking", description=__doc__)
    options.add_argument(
        "--store", action="store_true", help="store a new run instead of comparing"
    )
    options.add_argument(
        "--seconds",
        type=float,
        default=SECONDS_EACH,
        help="for each benchmark (default: %(default)s)",
    )
    asked = options.parse_args()
    if not asked.store and not STORED.exists():
        print(f"{STORED.name}: no stored run; make one with ARGS=--store", file=sys.stderr)
        return 2

    def measure(what: Iterable[str]) -> Document:
        return run(what, asked.seconds)

    try:
        if asked.store:
            words = store(measure)
        else:
            words = check(measure, Run.from_json(STORED.read_text(encoding="utf-8")))
    except BenchmarkError as failed:
        print(failed, file=sys.stderr)
        return 2
    document(Run.from_json(STORED.read_text(encoding="utf-8")))
    print(*(words or ["all ratios and bars hold"]), sep="\n")
    if words and not asked.store:
        print("when that is meant, store a new run: make bench-compare ARGS=--store")
    return int(bool(words))


if __name__ == "__main__":
    sys.exit(main())
