"""The two displays: one that redraws itself with rich, one that prints a line a second."""

from __future__ import annotations

import importlib.util
import os
import sys
from types import TracebackType
from typing import Any, Protocol, Self

from demo.progress import Snapshot
from demo.report import Row
from demo.settings import FAILING_KEYS, HOT_KEY, MAX_CONCURRENCY
from demo.tables import WIDTH, plain_lines, rich_table

_STOCK = {
    "not yet": ("their service works", ""),
    "down": ("their service is DOWN: deferred", "bold red"),
    "back": ("their service is back", "green"),
}
"""What to say of the failing keys, and the style."""

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
                f"{'':46}orders that wait:{'':19}reminders:\n{'time':>7}{'sent':>8}{'handled':>8}"
                f"{'per s':>7}{'failed':>7}{'lag':>7}{'hot key':>9}{'failing keys':>14}{'others':>7}"
                f"{'set':>10}{'fired':>7}"
            )
        lag = "?" if s.lag is None else f"{s.lag:,}"
        failing = f"{s.failing_waiting:,}" + (" (down)" if s.stock == "down" else "")
        print(
            f"{s.seconds:5.1f} s{s.sent:>8,}{s.handled:>8,}{s.per_s:>7,.0f}{s.failed:>7}{lag:>7}"
            f"{s.hot_waiting:>9,}{failing:>14}{s.others_waiting:>7,}{s.timers_waiting:>10,}"
            f"{s.timers_fired:>7,}",
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
        grid.add_row("failed", "attempts that come again", f"{s.failed:,}")
        lag = "?" if s.lag is None else f"{s.lag:,}"
        grid.add_row("lag", "in the topic, not yet committed", lag)
        grid.add_row()
        grid.add_row(HOT_KEY, "the hot key", Text(f"{s.hot_waiting:,}", "yellow"), "waiting")
        stock = Text(*_STOCK[s.stock])
        failing = Text(f"{s.failing_waiting:,}", "yellow")
        grid.add_row(f"{len(FAILING_KEYS)} failing keys", stock, failing, "waiting")
        if s.others_latency is not None:
            self._others = f"done in {s.others_latency.p50 * 1000:.0f} ms"
        waiting = Text(f"{s.others_waiting:,}", "green")
        grid.add_row("other customers", Text(self._others, "green"), waiting, "waiting")
        grid.add_row()
        reminders = f"{s.timers_waiting:,} set, for their second"
        grid.add_row("reminders", reminders, f"{s.timers_fired:,}", "fired")
        grid.add_row("duplicates", "orders sent once more", f"{s.copies:,}", "to be skipped")
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
