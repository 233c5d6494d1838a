"""The closing table: its rows, and what each must be.

A new feature of the demo adds a field to ``Facts`` and a row here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from demo.durable import Timers
from demo.measure import Facts, Latency
from demo.settings import MAX_CONCURRENCY, TIMER_LATE_MAX_S


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
        *_deferred(facts),
        *_timers(facts.durable.timers, max(TIMER_LATE_MAX_S, facts.slowest_other_s)),
        _exactly(
            "duplicates_skipped",
            "duplicates skipped",
            facts.durable.copies.skipped,
            facts.planned_copies,
            "orders that were sent twice",
        ),
        _committed(facts),
        _none(
            "left_in_stores",
            "left in the stores",
            sum(facts.left),
            f"timers {facts.left.timers:,}, deferred {facts.left.deferred:,}",
        ),
        _none("errors_logged", "errors logged by prosody", facts.errors_logged),
        _speed(facts),
        Row(
            "timers_cancelled",
            "timers cancelled",
            facts.durable.timers.cancelled,
            f"{facts.durable.timers.cancelled:,}",
            note="or moved",
        ),
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
        _latency("latency_failing_s", "p50 / p99, the failing keys", facts.latency_failing),
    ]


def failures(table: Sequence[Row]) -> list[str]:
    """One sentence for each check that does not hold."""
    return [
        f"{row.label}: {row.shown}, must be {row.must_be}" + (f" ({row.note})" if row.note else "")
        for row in table
        if row.ok is False
    ]


def as_json(table: Sequence[Row], broker: str, stores: str) -> dict[str, Any]:
    """The table as JSON; times in seconds."""
    return {
        "broker": broker,
        "stores": stores,
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
        bool(row.ok) and stored == facts.sent + facts.durable.copies.sent,
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


def _deferred(facts: Facts) -> list[Row]:
    deferred = facts.durable.deferred
    return [
        Row(
            "deferred",
            "deferred",
            deferred.orders,
            f"{deferred.orders:,}",
            "at least 1" if facts.expects_deferred else "",
            deferred.orders >= 1 if facts.expects_deferred else None,
            f"of {deferred.keys} keys, as commits show",
        ),
        _exactly(
            "deferred_finished",
            "deferred, then handled in order",
            deferred.finished,
            deferred.orders,
            f"in {duration(deferred.longest_s)}" if deferred.orders else "",
        ),
    ]


def _timers(timers: Timers, late_max_s: float) -> list[Row]:
    late = timers.late_max_s
    return [
        Row(
            "timers_set",
            "timers set",
            timers.set,
            f"{timers.set:,}",
            "at least 1",
            timers.set >= 1,
            "reminders",
        ),
        _exactly("timers_fired", "timers fired", timers.fired, timers.expected, "once each"),
        _none("timers_wrong", "fired wrongly", timers.wrong, "again, cancelled, never set"),
        _none("timers_early", "fired early", timers.early, "before their second"),
        Row(
            "timers_late_max_s",
            "fired late, at most",
            round(late, 3),
            duration(late),
            duration(late_max_s),
            late <= late_max_s,
            "after their second",
        ),
    ]


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


def _exactly(name: str, label: str, value: int, wanted: int, note: str = "") -> Row:
    return Row(name, label, value, f"{value:,}", f"{wanted:,}", value == wanted, note)


def _none(name: str, label: str, value: int, note: str = "") -> Row:
    return Row(name, label, value, f"{value:,}", "0", value == 0, note)
