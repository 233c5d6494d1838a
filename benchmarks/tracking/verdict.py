"""This run against the stored one, by ratios: what fell, what is missing, and up to three tries at it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.tracking.results import Measured, order, ratios

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.tracking.bars import Bar
    from benchmarks.tracking.results import Case, Document, Seconds

OK, FALLEN, MISSING, RISEN, NEW = "ok", "FALLEN", "MISSING", "risen", "new"
NO_RATIO = "no ratio"

TOLERANCE, TOLERANCE_LARGE, LARGE = 0.7, 0.5, 100_000
"""A ratio may fall to this share of the stored one; from n = ``LARGE`` on to the second, because there the
caches that a virtual machine shares with others decide. Measured: see ``docs/benchmarks/core.md``.
"""

TRIES = 3


class Row(NamedTuple):
    """One ratio of one case."""

    case: Case
    ratio: str
    stored: float | None
    now: float | None
    word: str

    @property
    def failed(self) -> bool:
        return self.word in {FALLEN, MISSING}


def allowed(n: int | None) -> float:
    """The share of the stored ratio that suffices at this size."""
    return TOLERANCE_LARGE if n is not None and n >= LARGE else TOLERANCE


def compare(stored: Seconds, now: Seconds) -> list[Row]:
    """A row for each ratio of either run, and for each case that has none.

    A ratio has fallen when it is below ``allowed`` of the stored one, has risen when it is that far above,
    and is missing when only the stored run has it. A risen one fails nothing: the compiled half got
    faster or the pure one slower, and whoever looks stores a new run.
    """
    before, after = ratios(stored), ratios(now)
    rows = [
        Row(*key, before.get(key), after.get(key), _word(key[0], before.get(key), after.get(key)))
        for key in {*before, *after}
    ]
    for case in {*stored, *now} - {row.case for row in rows}:
        word = NEW if case not in stored else OK if case in now else MISSING
        rows.append(Row(case, NO_RATIO, None, None, word))
    return sorted(rows, key=lambda row: (order(row.case), row.ratio))


def _word(case: Case, stored: float | None, now: float | None) -> str:
    if stored is None:
        return NEW
    if now is None:
        return MISSING
    if now < stored * allowed(case.n):
        return FALLEN
    return RISEN if now * allowed(case.n) > stored else OK


def faults(
    rows: Sequence[Row], bars: Iterable[Bar], seconds: Seconds
) -> tuple[list[str], set[Case]]:
    """What fails the run, in words, and the cases that one more try could put right."""
    missed = [bar for bar in bars if bar.fails and not bar.met(seconds)]
    words = [f"{row.word}: {row.case}, {row.ratio}" for row in rows if row.failed]
    words += [f"MISSED: {bar.text}" for bar in missed]
    again = {row.case for row in rows if row.word == FALLEN}
    # Another try does not bring what was not measured at all.
    measured = [bar for bar in missed if bar.value(seconds) is not None]
    return words, again | {case for bar in measured for case in bar.cases}


def tried(
    measure: Callable[[Iterable[str]], Document],
    files: Iterable[str],
    stored: Seconds,
    bars: Sequence[Bar],
) -> tuple[Measured, list[Row], list[str]]:
    """Measure ``files``, then once more what fails, until nothing does or the tries are used up.

    The least seconds over all tries count, for both sides of a ratio. Answers what was measured, the rows,
    and what fails, in words.
    """
    measured, what = Measured(), files
    for number in range(1, TRIES + 1):
        measured.add(measure(what))
        rows = compare(stored, measured.seconds)
        words, again = faults(rows, bars, measured.seconds)
        if not again or number == TRIES:
            break
        print(f"try {number}: {len(again)} cases fail, once more", file=sys.stderr)
        what = sorted(node for case in again for node in measured.nodes[case])
    return measured, rows, words
