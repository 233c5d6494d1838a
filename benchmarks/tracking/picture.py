"""Cost against n, log-log, one panel for each structure. Equal runs give equal bytes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from benchmarks.tracking.results import (
    COMPILED,
    COMPILED_SCAN,
    PURE,
    PURE_SCAN,
    SHARED,
    SIDES,
    in_order,
)

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.tracking.results import Seconds

COLUMNS = 2
LOOKS: dict[str, dict[str, Any]] = {
    COMPILED: {"linestyle": "-", "marker": "o"},
    PURE: {"linestyle": "--", "marker": "s", "markerfacecolor": "white"},
    COMPILED_SCAN: {"linestyle": "-", "marker": "^"},
    PURE_SCAN: {"linestyle": "--", "marker": "v", "markerfacecolor": "white"},
    SHARED: {"linestyle": ":", "marker": "D"},
}
SCANS = {COMPILED_SCAN, PURE_SCAN}
SCAN_COLOUR = "#777777"
# Okabe and Ito's, told apart by the colour-blind too; without the yellow, too pale for a thin line.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
STYLE = {
    "svg.hashsalt": "prosody",  # else ids are random
    "svg.fonttype": "path",  # the same letters wherever it is looked at
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
}


def draw(seconds: Seconds, path: Path) -> None:
    """Write the picture to ``path``, as SVG or PNG by its ending.

    Operations without a size have no line; they are in the tables.
    """
    with mpl.rc_context(STYLE):
        figure = _figure(seconds)
        date = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, metadata=date, facecolor="white", dpi=110)
    if path.suffix == ".svg":
        # matplotlib ends some lines with a blank, which git and editors complain about.
        lines = path.read_text(encoding="utf-8").splitlines()
        path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")


def _figure(seconds: Seconds) -> Figure:
    panels: dict[str, dict[str, dict[str, list[tuple[int, float]]]]] = {}
    for case, sides in in_order(seconds):
        for side, took in sides.items():
            if case.n is not None:
                lines = panels.setdefault(case.structure, {}).setdefault(case.operation, {})
                lines.setdefault(side, []).append((case.n, took * 1e6))
    rows = max(1, -(-len(panels) // COLUMNS))
    figure = Figure(figsize=(11, 5.2 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for (structure, operations), ax in zip(panels.items(), axes, strict=False):
        _panel(ax, structure, operations)
    for ax in itertools.islice(axes, 0, None):
        ax.set_axis_off()
    shown = [s for s in SIDES if any(s in o for p in panels.values() for o in p.values())]
    figure.legend(
        handles=[
            Line2D([], [], color=colour_of(side, "black"), label=SIDES[side], **LOOKS[side])
            for side in shown
        ],
        loc="outside upper center", ncols=len(SIDES), frameon=False, handlelength=3.5,
    )  # fmt: skip
    return figure


def colour_of(side: str, colour: str) -> str:
    """Scans are grey: they are there to be compared with."""
    return SCAN_COLOUR if side in SCANS else colour


def _panel(
    ax: Any, structure: str, operations: dict[str, dict[str, list[tuple[int, float]]]]
) -> None:
    sizes = sorted({n for sides in operations.values() for line in sides.values() for n, _ in line})
    for (operation, sides), colour in zip(operations.items(), itertools.cycle(COLOURS)):
        for side, line in sides.items():
            ax.plot(*zip(*line, strict=True), color=colour_of(side, colour), **LOOKS[side])
        ax.plot([], [], color=colour, label=operation, linewidth=4)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_title(structure.capitalize(), fontweight="bold")
    ax.set_xlabel("n")
    ax.set_ylabel("µs for one operation")
    ax.set_xticks(sizes)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    ax.xaxis.set_minor_locator(NullLocator())
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda us, _: f"{us:,.10g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    ax.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=8, frameon=False,
        ncols=1 if len(operations) == 1 else 2, handlelength=1.2,
    )  # fmt: skip
