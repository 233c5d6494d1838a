"""Histories written by hand, right and wrong."""

from __future__ import annotations

import typing

from demo.durable import Sight
from demo.history import Event, Kind, OrderKind, TimerKind
from demo.measure import Facts, measure
from tools.look import Offsets
from tools.look_stores import Left

HOT, FAILING = "hot", "failing"

# Two keys, interleaved; one order fails once, is committed all the same, and tried again. One comes twice.
# Of three timers one is cancelled, the others fire in time.
RIGHT = """
    send a1, sent a1, send failing1, sent failing1, send a2, sent a2, send_copy a1, sent_copy a1
    begin a1 0/0, begin failing1 1/0, failed failing1, set a5, set a7, handled a1
    begin a2 0/1, set a6, cancelled a6, handled a2, begin failing1 1/0, handled failing1
    timer_begin a5 +0.25, fired a5, timer_begin a7 +0.5, fired a7
"""
OFFSETS = {0: Offsets(3, 3), 1: Offsets(1, 1)}
SEEN: list[Sight] = [(11.0, {0: 0, 1: 0}), (13.5, {0: 0, 1: 1})]
"""At 13.5 the failing order was committed, and not handled before 19."""

_KINDS: dict[str, Kind] = {
    kind: kind for kinds in (OrderKind, TimerKind) for kind in typing.get_args(kinds)
}


def events(text: str) -> list[Event]:
    """Events, one a second, from text such as ``send a1, sent a1``.

    Behind an order may stand partition and offset (``0/1``), behind a timer how late it is (``+0.25``).
    """
    found = []
    steps = [step for step in text.replace("\n", ",").split(",") if step.strip()]
    for at, step in enumerate(steps):
        kind, order, *more = step.split()
        key, seq = order[:-1], int(order[-1])
        event = Event(_KINDS[kind], key, seq, float(at))
        for extra in more:
            if "/" in extra:
                partition, offset = extra.split("/")
                event = event._replace(place=(int(partition), int(offset)))
            else:
                event = event._replace(wall=seq + float(extra))
        found.append(event)
    return found


def facts(
    text: str = RIGHT,
    offsets: dict[int, Offsets] = OFFSETS,
    *,
    planned: int = 3,
    planned_copies: int = 1,
    errors_logged: int = 0,
    sights: list[Sight] = SEEN,
    left: Left = Left(0, 0),  # noqa: B008  # immutable
) -> Facts:
    """What the demo measures of a history."""
    return measure(
        events(text),
        sights,
        left,
        offsets,
        planned=planned,
        planned_copies=planned_copies,
        expects_retries=True,
        expects_deferred=True,
        hot_key=HOT,
        failing_keys={FAILING},
        errors_logged=errors_logged,
    )
