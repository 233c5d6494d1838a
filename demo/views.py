"""The two displays: one that redraws itself with rich, one that prints a line a second."""

from __future__ import annotations

import importlib.util
import os
import sys
from types import TracebackType
from typing import Any, Protocol, Self

from demo.progress import Snapshot
from demo.report import WIDTH, Row, plain_lines, rich_table
from demo.settings import FAILING_KEY, HOT_KEY, MAX_CONCURRENCY

_STOCK = {
    "not yet": ("its service works", ""),
    "down": ("its service is DOWN, retrying", "bold red"),
    "back": ("its service is back", "green"),
}
"""What to say of the failing key, and the style."""

_BAR = 34


class Screen(Protocol):
    """Where everything is printed. Entered while the live display runs."""

    every_s: float

    def say(self, text: str, style: str = "") -> None:
        """Print a text for people."""
        ...

    def show(self, snapshot: Snapshot) -> None:
        """Show how things stand."""
        ...

    def table(self, rows: list[Row]) -> None:
        """Print the closing table."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def make_screen(plain: bool) -> Screen:
    """A live display on a terminal that can show it, plain lines elsewhere or when asked for."""
    alive = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if plain or not alive or importlib.util.find_spec("rich") is None:
        return PlainScreen()
    return RichScreen()


class PlainScreen:
    """Lines, one a second: for logs, pipes and terminals that cannot redraw."""

    every_s = 1.0

    def __init__(self) -> None:
        self._began = False

    def say(self, text: str, style: str = "") -> None:
        print(text, flush=True)

    def show(self, snapshot: Snapshot) -> None:
        s = snapshot
        if not self._began:
            self._began = True
            print(
                f"{'':56}orders that wait:\n{'time':>7}{'sent':>9}{'handled':>9}{'per s':>8}"
                f"{'running':>9}{'failed':>8}{'lag':>8}{'hot key':>9}{'failing key':>14}{'others':>8}"
            )
        lag = "?" if s.lag is None else f"{s.lag:,}"
        failing = f"{s.failing_waiting:,}" + (" (down)" if s.stock == "down" else "")
        print(
            f"{s.seconds:5.1f} s{s.sent:>9,}{s.handled:>9,}{s.per_s:>8,.0f}{s.running:>9}{s.failed:>8}"
            f"{lag:>8}{s.hot_waiting:>9,}{failing:>14}{s.others_waiting:>8,}",
            flush=True,
        )

    def table(self, rows: list[Row]) -> None:
        print("\n".join(["", *plain_lines(rows), ""]), flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing to take down."""


class RichScreen:
    """A panel that is drawn again a few times a second."""

    every_s = 0.2

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console: Any = console or Console(highlight=False)
        # Drawn from our own loop, not from rich's thread: the handlers run in this process too.
        self._live: Any = Live(console=self._console, auto_refresh=False)
        self._others = ""

    def say(self, text: str, style: str = "") -> None:
        self._console.print(text, style=style or None, soft_wrap=True, markup=False)

    def show(self, snapshot: Snapshot) -> None:
        self._live.update(self.panel(snapshot), refresh=True)

    def table(self, rows: list[Row]) -> None:
        self._console.print(rich_table(rows))

    def panel(self, s: Snapshot) -> Any:
        """The live display of a moment."""
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        grid.add_column(width=16, style="bold")
        grid.add_column(width=_BAR)
        grid.add_column(width=8, justify="right")
        grid.add_column(ratio=1, style="dim")
        done = ProgressBar(s.total, s.handled, _BAR)
        grid.add_row("sent", ProgressBar(s.total, s.sent, _BAR), f"{s.sent:,}", f"of {s.total:,}")
        grid.add_row("handled", done, f"{s.handled:,}", f"{s.per_s:,.0f} a second")
        busy = ProgressBar(MAX_CONCURRENCY, s.running, _BAR)
        grid.add_row("running", busy, f"{s.running}", f"of {MAX_CONCURRENCY} handlers")
        grid.add_row("retried", "attempts that failed", f"{s.failed:,}")
        lag = "?" if s.lag is None else f"{s.lag:,}"
        grid.add_row("lag", "in the topic, not yet committed", lag)
        grid.add_row()
        grid.add_row(HOT_KEY, "the hot key", Text(f"{s.hot_waiting:,}", "yellow"), "waiting")
        stock = Text(*_STOCK[s.stock])
        grid.add_row(FAILING_KEY, stock, Text(f"{s.failing_waiting:,}", "yellow"), "waiting")
        if s.others_latency is not None:
            self._others = f"done in {s.others_latency.p50 * 1000:.0f} ms"
        waiting = Text(f"{s.others_waiting:,}", "green")
        grid.add_row("other customers", Text(self._others, "green"), waiting, "waiting")
        return Panel(grid, title=f"{s.seconds:.1f} s", title_align="left", width=WIDTH)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()
