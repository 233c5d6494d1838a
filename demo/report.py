"""The closing table: its rows, what each must be, and how it is shown.

A new feature of the demo adds a field to ``Facts`` and a row here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from demo.measure import Facts, Latency
from demo.settings import MAX_CONCURRENCY

WIDTH = 96


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. A row with ``ok`` not None is a check, and False fails the demo."""

    name: str
    """For ``--json``; stays the same when the label is reworded."""
    label: str
    value: Any
    shown: str
    must_be: str = ""
    ok: bool | None = None
    note: str = ""


def rows(facts: Facts) -> list[Row]:
    """All rows, checks first."""
    return [
        _sent(facts),
        _exactly("handled", "handled", facts.handled, facts.planned),
        _retried(facts),
        _none("out_of_order", "out of order", facts.out_of_order, "within one key"),
        _none("lost", "lost", facts.lost, "sent, never handled"),
        _none("handled_twice", "handled twice", facts.handled_twice),
        _none("overlapping", "at the same time for one key", facts.overlapping),
        _committed(facts),
        _none("errors_logged", "errors logged by prosody", facts.errors_logged),
        _speed(facts),
        Row(
            "running_max",
            "handlers running, at most",
            facts.running_max,
            f"{facts.running_max}",
            note=f"of {MAX_CONCURRENCY} allowed",
        ),
        _latency("latency_s", "p50 / p99, all orders", facts.latency),
        _latency("latency_others_s", "p50 / p99, the other keys", facts.latency_others),
        _latency("latency_hot_s", "p50 / p99, the hot key", facts.latency_hot),
        _latency("latency_failing_s", "p50 / p99, the failing key", facts.latency_failing),
    ]


def failures(table: Sequence[Row]) -> list[str]:
    """One sentence for each check that does not hold."""
    return [
        f"{row.label}: {row.shown}, must be {row.must_be}" + (f" ({row.note})" if row.note else "")
        for row in table
        if row.ok is False
    ]


def as_json(table: Sequence[Row], broker: str) -> dict[str, Any]:
    """The table as JSON; times in seconds."""
    return {
        "broker": broker,
        "passed": not failures(table),
        "failed_checks": [row.name for row in table if row.ok is False],
        **{row.name: row.value for row in table},
    }


def _sent(facts: Facts) -> Row:
    stored = sum(o.end for o in facts.offsets.values())
    row = _exactly("sent", "sent", facts.sent, facts.planned)
    note = f"{stored:,} in the topic"
    return Row(
        row.name,
        row.label,
        row.value,
        row.shown,
        row.must_be,
        bool(row.ok) and stored == facts.sent,
        note,
    )


def _retried(facts: Facts) -> Row:
    attempts, orders = facts.failed_attempts, facts.retried_orders
    return Row(
        "retried",
        "retried",
        attempts,
        f"{attempts:,}",
        "at least 1" if facts.expects_retries else "",
        attempts >= 1 if facts.expects_retries else None,
        f"attempts, of {orders:,} order{'' if orders == 1 else 's'}",
    )


def _committed(facts: Facts) -> Row:
    there = sum(o.committed == o.end for o in facts.offsets.values())
    all_of_them = len(facts.offsets)
    behind = [
        f"partition {number} at {o.committed:,} of {o.end:,}"
        for number, o in sorted(facts.offsets.items())
        if o.committed != o.end
    ]
    return Row(
        "committed",
        "committed offset = end of topic",
        {str(number): list(o) for number, o in sorted(facts.offsets.items())},
        f"{there} of {all_of_them}",
        f"{all_of_them} of {all_of_them}",
        all_of_them > 0 and there == all_of_them,
        ", ".join(behind) or "partitions",
    )


def _speed(facts: Facts) -> Row:
    speed = facts.handled / facts.seconds if facts.seconds > 0 else 0.0
    return Row(
        "messages_per_s",
        "messages/s",
        round(speed, 1),
        f"{speed:,.0f}",
        note=f"over {facts.seconds:.1f} s, as sent",
    )


def _latency(name: str, label: str, value: Latency | None) -> Row:
    if value is None:
        return Row(name, label, None, "-")
    shown = f"{duration(value.p50)} / {duration(value.p99)}"
    return Row(name, label, value._asdict(), shown, note="from send to handled")


def duration(seconds: float) -> str:
    """For people: milliseconds, or seconds from one on."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _exactly(name: str, label: str, value: int, wanted: int) -> Row:
    return Row(name, label, value, f"{value:,}", f"{wanted:,}", value == wanted)


def _none(name: str, label: str, value: int, note: str = "") -> Row:
    return Row(name, label, value, f"{value:,}", "0", value == 0, note)


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
