"""The pictures: a panel of bars for each question. Equal outcomes give equal bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.compare.report import BROKEN, median
from benchmarks.compare.rivals import RIVALS
from benchmarks.compare.works import cases
from benchmarks.tracking.picture import COLOURS, STYLE
from benchmarks.tracking.report import number

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.compare.outcome import Outcome

COLOUR_OF = dict(zip(RIVALS, COLOURS, strict=False))
PANELS = (
    ("a", "rate", 1.0, "no-op handler, defaults: messages/s"),
    ("b", "rate", 1.0, "no-op handler, best settings: messages/s"),
    ("a", "cpu_us", 1.0, "no-op handler, defaults: CPU µs/message"),
    ("e", "rate", 1.0, "an id each over Cassandra: messages/s"),
    ("h", "p50_s", 1e3, "latency, open loop: p50, ms"),
    ("h", "p99_s", 1e3, "latency, open loop: p99, ms"),
    ("h", "p999_s", 1e3, "latency, open loop: p99.9, ms"),
    ("j", "peak_mib", 1.0, "100,000 keys: peak memory, MiB"),
)
COLUMNS = 2
PANEL_INCHES = (7.0, 2.6)


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write the picture to ``path``, as SVG."""
    with mpl.rc_context(STYLE):
        figure = _figure(outcomes)
        figure.savefig(path, metadata={"Date": None}, facecolor="white")
    # matplotlib ends some lines with a blank, which git and editors complain about.
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")


def _figure(outcomes: Sequence[Outcome]) -> Figure:
    rows = -(-len(PANELS) // COLUMNS)
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * COLUMNS, height * rows), layout="constrained")
    keys = {case.row: case.key for case in cases()}
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for ax, (row, what, scale, title) in zip(axes, PANELS, strict=True):
        _panel(ax, f"({row}) {title}", [o for o in outcomes if o.case == keys[row]], what, scale)
    return figure


def _panel(ax: Any, title: str, outcomes: Sequence[Outcome], what: str, scale: float) -> None:
    """Log scale, as the least and the greatest differ by thousands; the numbers stand beside the bars."""
    ax.set_title(title, fontsize=9, fontweight="bold", loc="left")
    bars = []
    for entrant in dict.fromkeys(outcome.entrant.name for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.entrant.name == entrant]
        value = median(mine, what)
        if value:
            broken = f"{BROKEN} " if any(outcome.broken for outcome in mine) else ""
            bars.append((f"{broken}{entrant}", value * scale, COLOUR_OF[mine[0].entrant.rival]))
    if not bars:
        ax.text(0.5, 0.5, "not measured", ha="center", va="center", transform=ax.transAxes)
        ax.set_axis_off()
        return
    places = range(len(bars))
    values = [value for _, value, _ in bars]
    ax.barh(places, values, color=[colour for _, _, colour in bars], height=0.7)
    ax.set_yticks(places, [name for name, _, _ in bars])
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.set_xlim(min(values) / 3, max(values) * 6)
    for at, value in zip(places, values, strict=True):
        ax.text(value, at, f" {number(value)}", va="center", fontsize=8)
    ax.xaxis.set_visible(False)
    ax.spines[["top", "right", "bottom"]].set_visible(False)
