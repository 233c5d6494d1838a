"""Turns the history of a run into facts about deferral, timers and copies. Pure, as ``measure.py`` is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from demo.history import Event

Order = tuple[str, int]
Sight = tuple[float, Mapping[int, int]]
"""When the broker was asked, and what the group had committed then, by partition."""


class Deferred(NamedTuple):
    """Orders that were committed before they were handled.

    Nothing of it is the library's word: what is committed was asked of the broker, what is handled the
    handler wrote down. A partition that commits beyond an order that is not handled has put it by.
    """

    orders: int
    keys: int
    """How many keys they belong to."""
    finished: int
    """Those of them that were handled in the end, each after all earlier orders of its key."""
    longest_s: float
    """From the look that saw the first of them passed over to the end of the last one."""


class Timers(NamedTuple):
    """What became of the timers."""

    set: int
    cancelled: int
    """Set, and cancelled or moved before they fired."""
    expected: int
    """Those that were not: each must fire, and once."""
    fired: int
    """Those of them that did."""
    wrong: int
    """Firings of a timer that had fired already, was cancelled, or was never set. One that a call was to
    set that failed may fire or not: the call may have had its effect."""
    early: int
    """Attempts that began before the second for which the timer was set."""
    late_max_s: float
    """The longest time from that second to the first attempt."""


class Copies(NamedTuple):
    """Orders that were sent twice."""

    sent: int
    """Copies that the broker has acknowledged."""
    skipped: int
    """Those that did not bring the order to the handler's success once more."""


class Durable(NamedTuple):
    """All of it."""

    deferred: Deferred
    timers: Timers
    copies: Copies


def measure_durable(events: Sequence[Event], sights: Sequence[Sight]) -> Durable:
    """What a history tells, together with what was seen of the broker meanwhile."""
    return Durable(_deferred(events, sights), _timers(events), _copies(events))


def _deferred(events: Sequence[Event], sights: Sequence[Sight]) -> Deferred:
    places: dict[Order, tuple[int, int]] = {}
    handled: dict[Order, float] = {}
    in_turn: set[Order] = set()
    newest: Counter[str] = Counter()
    for event in events:
        order = event.key, event.seq
        if event.kind == "begin" and event.place is not None:
            places.setdefault(order, event.place)
        elif event.kind == "handled" and order not in handled:
            handled[order] = event.at
            if event.seq == newest[event.key] + 1:
                in_turn.add(order)
            newest[event.key] = max(newest[event.key], event.seq)
    passed: dict[Order, float] = {}
    for order, (partition, offset) in places.items():
        done_at = handled.get(order, float("inf"))
        seen = next(
            (
                at
                for at, committed in sights
                if at < done_at and committed.get(partition, 0) > offset
            ),
            None,
        )
        if seen is not None:
            passed[order] = seen
    ends = [handled[order] for order in passed if order in handled]
    return Deferred(
        orders=len(passed),
        keys=len({key for key, _ in passed}),
        finished=len(passed.keys() & in_turn),
        longest_s=max(ends) - min(passed.values()) if ends else 0.0,
    )


def _timers(events: Iterable[Event]) -> Timers:
    live: set[Order] = set()
    asked: set[Order] = set()
    made = cancelled = fired = wrong = early = 0
    late: dict[Order, float] = {}
    for event in events:
        timer = event.key, event.seq
        if event.kind == "asked":
            asked.add(timer)
        elif event.kind == "set":
            asked.discard(timer)
            made += timer not in live
            live.add(timer)
        elif event.kind == "cancelled":
            cancelled += timer in live
            live.discard(timer)
            asked.discard(timer)
        elif event.kind == "timer_begin":
            # At its beginning: whoever cancels may not see it run at all.
            wrong += timer not in live and timer not in asked
            early += event.wall < event.seq
            late.setdefault(timer, event.wall - event.seq)
        elif event.kind == "fired":
            fired += timer in live
            live.discard(timer)
            asked.discard(timer)
    return Timers(
        set=made,
        cancelled=cancelled,
        expected=made - cancelled,
        fired=fired,
        wrong=wrong,
        early=early,
        late_max_s=max(late.values(), default=0.0),
    )


def _copies(events: Iterable[Event]) -> Copies:
    sent: Counter[Order] = Counter()
    handled: Counter[Order] = Counter()
    for event in events:
        if event.kind == "sent_copy":
            sent[event.key, event.seq] += 1
        elif event.kind == "handled":
            handled[event.key, event.seq] += 1
    again = sum(min(count, max(0, handled[order] - 1)) for order, count in sent.items())
    total = sum(sent.values())
    return Copies(total, total - again)
