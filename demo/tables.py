"""How the closing table is shown: as plain text, or with rich."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demo.report import Row

WIDTH = 96


def plain_lines(table: Sequence[Row]) -> list[str]:
    """The table as text, at most ``WIDTH`` wide."""
    head = ("measured", "", "must be", "")
    cells = [(r.label, r.shown, r.must_be, _mark(r.ok), r.note) for r in table]
    widths = [max(len(row[n]) for row in (*cells, head)) for n in range(4)]
    lines = [_line((*head, ""), widths), "-" * WIDTH]
    checks = sum(row.ok is not None for row in table)
    for number, row in enumerate(cells):
        if number == checks:
            lines.append("-" * WIDTH)
        lines.append(_line(row, widths))
    return lines


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    label, shown, must_be, mark, note = cells
    text = (
        f"{label:<{widths[0]}}  {shown:>{widths[1]}}  {must_be:>{widths[2]}}  {mark:<{widths[3]}}"
    )
    return f"{text}  {note}".rstrip()


def _mark(ok: bool | None) -> str:
    return {None: "", True: "ok", False: "FAILED"}[ok]


def rich_table(table: Sequence[Row]) -> Any:
    """The table for rich."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    shown.width = WIDTH
    shown.add_column("measured", no_wrap=True)
    shown.add_column("", justify="right", no_wrap=True, style="bold")
    shown.add_column("must be", justify="right", no_wrap=True)
    shown.add_column("", no_wrap=True)
    shown.add_column("", style="dim", overflow="fold", ratio=1)
    checks = sum(row.ok is not None for row in table)
    style: Callable[[bool | None], str] = {None: "", True: "green", False: "bold red"}.__getitem__
    for number, row in enumerate(table, start=1):
        shown.add_row(
            row.label,
            Text(row.shown, style(row.ok)),
            row.must_be,
            Text(_mark(row.ok), style(row.ok)),
            row.note,
            end_section=number == checks,
        )
    return shown
