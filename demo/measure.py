"""Turns the history of a run into numbers. Pure: events in, facts out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from demo.durable import Durable, Sight, measure_durable
from demo.history import Event
from tools.look import Offsets
from tools.look_stores import Left


class Latency(NamedTuple):
    """From the call of ``send`` to the end of the handler, in seconds."""

    p50: float
    p99: float


class Facts(NamedTuple):
    """What a run has measured."""

    planned: int
    """Orders that were to be sent."""
    planned_copies: int
    expects_retries: bool
    """Whether the failing keys have orders, so that there must be failed attempts."""
    expects_deferred: bool
    """Whether they fail for long enough that orders must be seen deferred."""
    sent: int
    handled: int
    failed_attempts: int
    retried_orders: int
    out_of_order: int
    """Attempts for an order after a later one of the same key had begun."""
    lost: int
    """Orders sent and never handled."""
    handled_twice: int
    overlapping: int
    """Attempts, those for timers too, that began while another one of the same key was running."""
    durable: Durable
    left: Left
    """What the stores still held after the client was shut down."""
    offsets: dict[int, Offsets]
    errors_logged: int
    seconds: float
    """From the first send to the last order handled."""
    running_max: int
    latency: Latency | None
    latency_hot: Latency | None
    latency_failing: Latency | None
    latency_others: Latency | None
    slowest_other_s: float
    """The longest time from ``send`` to the end of the handler, of neither the hot nor a failing key."""


class _Runs(NamedTuple):
    """What the attempts alone tell."""

    out_of_order: int
    overlapping: int
    running_max: int


def measure(
    events: Sequence[Event],
    sights: Sequence[Sight],
    left: Left,
    offsets: dict[int, Offsets],
    *,
    planned: int,
    planned_copies: int,
    expects_retries: bool,
    expects_deferred: bool,
    hot_key: str,
    failing_keys: Collection[str],
    errors_logged: int = 0,
) -> Facts:
    """Count and compare everything a history tells.

    :param sights: what was committed at moments of the run; ``offsets`` and ``left`` are of its end.
    """
    runs = _follow(events)
    called = {(e.key, e.seq): e.at for e in events if e.kind == "send"}
    sent = {(e.key, e.seq) for e in events if e.kind == "sent"}
    times = Counter((e.key, e.seq) for e in events if e.kind == "handled")
    failed = Counter((e.key, e.seq) for e in events if e.kind == "failed")
    ends = [e.at for e in events if e.kind == "handled"]
    took: dict[str, list[float]] = {"hot": [], "failing": [], "others": []}
    groups = {hot_key: "hot", **dict.fromkeys(failing_keys, "failing")}
    seen = set()
    for event in events:
        order = event.key, event.seq
        if event.kind == "handled" and order in called and order not in seen:
            seen.add(order)
            took[groups.get(event.key, "others")].append(event.at - called[order])
    return Facts(
        planned=planned,
        planned_copies=planned_copies,
        expects_retries=expects_retries,
        expects_deferred=expects_deferred,
        sent=len(sent),
        handled=len(times),
        failed_attempts=sum(failed.values()),
        retried_orders=len(failed),
        out_of_order=runs.out_of_order,
        lost=len(sent - times.keys()),
        handled_twice=sum(n - 1 for n in times.values()),
        overlapping=runs.overlapping,
        durable=measure_durable(events, sights),
        left=left,
        offsets=offsets,
        errors_logged=errors_logged,
        seconds=max(ends) - min(called.values()) if ends and called else 0.0,
        running_max=runs.running_max,
        latency=latency([s for group in took.values() for s in group]),
        latency_hot=latency(took["hot"]),
        latency_failing=latency(took["failing"]),
        latency_others=latency(took["others"]),
        slowest_other_s=max(took["others"], default=0.0),
    )


def _follow(events: Iterable[Event]) -> _Runs:
    """Go through the attempts as they began and ended, key by key."""
    running: Counter[str] = Counter()
    newest: Counter[str] = Counter()
    done: set[tuple[str, int]] = set()
    out_of_order = overlapping = total = total_max = 0
    for kind, key, seq, *_ in events:
        if kind in ("begin", "timer_begin"):
            if running[key]:
                overlapping += 1
            running[key] += 1
            total += 1
            total_max = max(total_max, total)
        if kind == "begin":
            # An order delivered again after it was handled is counted as handled twice, not here.
            if seq < newest[key] and (key, seq) not in done:
                out_of_order += 1
            newest[key] = max(newest[key], seq)
        elif kind in ("handled", "failed", "fired", "timer_failed"):
            running[key] -= 1
            total -= 1
            if kind == "handled":
                done.add((key, seq))
    return _Runs(out_of_order, overlapping, total_max)


def latency(seconds: Sequence[float]) -> Latency | None:
    """Median and 99th percentile (nearest rank); None of nothing."""
    if not seconds:
        return None
    ordered = sorted(seconds)

    def rank(percent: int) -> float:
        return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]

    return Latency(rank(50), rank(99))
