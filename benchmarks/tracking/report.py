"""The tables, in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.tracking.results import RATIOS, SIDES, in_order, ratios
from benchmarks.tracking.verdict import LARGE, OK, TOLERANCE, TOLERANCE_LARGE, TRIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.tracking.bars import Bar
    from benchmarks.tracking.results import Run, Seconds
    from benchmarks.tracking.verdict import Row


WANDER = f"""
A ratio fails when, after {TRIES} tries, it is below {TOLERANCE:g} of the stored one; from n = {LARGE:,}
on below {TOLERANCE_LARGE:g}, because there the caches that a virtual machine shares with others decide. Six
runs of the same code on two cores, three of them beside two processes that kept both cores busy, gave as
the least and the greatest ratio of new to stored, each of one kind against three of the other:

| | n below {LARGE:,} | n = {LARGE:,} |
|---|---:|---:|
| one try | 0.78 to 1.36 | 0.54 to 1.50 |
| three tries | 0.83 to 1.20 | 0.67 to 1.48 |

By the clock on the wall, and not by CPU time, three tries gave up to 4.12.
"""
"""Measured on 2026-11-23, before the tolerances were chosen."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int) -> str:
    """A Markdown table whose first ``words`` columns stand left and whose others stand right."""
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *rows))


def number(value: float | None) -> str:
    """Three digits or so, never in the form 1e+03; ``-`` for None."""
    if value is None:
        return "-"
    decimals = next((d for d, least in ((0, 99.95), (1, 9.995), (2, 0.9995)) if value >= least), 3)
    return f"{value:,.{decimals}f}"


def size(n: int | None) -> str:
    return "-" if n is None else f"{n:,}"


def comparison(rows: Sequence[Row]) -> str:
    """Every ratio, now and stored."""
    return table(
        ("structure", "operation", "ratio", "", "n", "stored", "now", "now / stored"),
        (
            (
                row.case.structure, row.case.operation, row.ratio, "" if row.word == OK else row.word,
                size(row.case.n), number(row.stored), number(row.now),
                number(row.now / row.stored if row.now and row.stored else None),
            )
            for row in rows
        ),
        words=4,
    )  # fmt: skip


def bars(given: Iterable[Bar], seconds: Seconds) -> str:
    """Every bar, with what was measured."""
    return table(
        ("bar", "", "measured"),
        ((bar.text, _met(bar, seconds), number(bar.value(seconds))) for bar in given),
        words=2,
    )


def _met(bar: Bar, seconds: Seconds) -> str:
    if bar.met(seconds):
        return "met"
    if bar.value(seconds) is None:
        return "NOT MEASURED"
    return "MISSED" if bar.fails else "missed on this machine"


def costs(seconds: Seconds) -> str:
    """Cost and ratios of each case, a table for each structure."""
    parts = []
    cases = list(in_order(seconds))
    faster = ratios(seconds)
    for structure in dict.fromkeys(case.structure for case, _ in cases):
        mine = [(case, sides) for case, sides in cases if case.structure == structure]
        sides = [side for side in SIDES if any(side in measured for _, measured in mine)]
        names = [name for name in RATIOS if any((case, name) in faster for case, _ in mine)]
        head = ("operation", "n", *(f"{SIDES[side]}, us" for side in sides), *names)
        rows = (
            (
                case.operation,
                size(case.n),
                *(
                    number(s * 1e6 if (s := found.get(side)) is not None else None)
                    for side in sides
                ),
                *(number(faster.get((case, name))) for name in names),
            )
            for case, found in mine
        )
        parts.append(f"## {structure.capitalize()}\n\n{table(head, rows, words=1)}")
    return "\n".join(parts)


def page(run: Run, given: Iterable[Bar], picture: str) -> str:
    """``docs/benchmarks/core.md``: the stored run with the picture of it."""
    facts = "".join(f"| {name} | {text} |\n" for name, text in run.about.items())
    return f"""\
# What the core costs

Made by `make bench-compare` from `benchmarks/stored/core.json`; edit neither by hand. What each operation
does is said in `benchmarks/bench_*.py`.

![Cost of one operation against n, both halves and the full scan]({picture})

| | |
|---|---|
{facts}
A figure is the least CPU time seen for one operation, outliers apart, in microseconds: noise adds time.
Absolute times belong to this machine. What is tracked are the ratios, each within one run.
{WANDER}
## Bars

{bars(given, run.seconds)}
{costs(run.seconds)}"""
