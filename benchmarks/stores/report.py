"""One measured row, and the table of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Row(NamedTuple):
    name: str
    count: int
    wall_s: float
    cpu_s: float
    wrong: int
    """Answers that were not what was stored."""

    @property
    def rate(self) -> float:
        return self.count / self.wall_s


def table(title: str, rows: Sequence[Row]) -> str:
    lines = [
        f"## {title}",
        "",
        "| | operations/s | CPU us/operation | wrong |",
        "|---|---:|---:|---:|",
    ]
    for row in rows:
        broken = "BROKEN " if row.wrong else ""
        cpu_us = row.cpu_s / row.count * 1e6
        lines.append(f"| {broken}{row.name} | {row.rate:,.0f} | {cpu_us:.1f} | {row.wrong} |")
    return "\n".join(lines) + "\n"
