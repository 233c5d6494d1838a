"""Histories written by hand, right and wrong."""

from __future__ import annotations

from demo.history import Event, Kind
from demo.measure import Facts, measure
from tools.look import Offsets

HOT, FAILING = "hot", "failing"

# Two keys, interleaved; one order fails once and is tried again.
RIGHT = """
    send a1, sent a1, send failing1, sent failing1, send a2, sent a2
    begin a1, begin failing1, failed failing1, handled a1
    begin a2, handled a2, begin failing1, handled failing1
"""
OFFSETS = {0: Offsets(2, 2), 1: Offsets(1, 1)}


def events(text: str) -> list[Event]:
    """Events, one a second, from text such as ``send a1, sent a1``."""
    found = []
    steps = [step for step in text.replace("\n", ",").split(",") if step.strip()]
    for at, step in enumerate(steps):
        kind, order = step.split()
        found.append(Event(_kind(kind), order[:-1], int(order[-1]), float(at)))
    return found


def _kind(text: str) -> Kind:
    for kind in ("send", "sent", "begin", "handled", "failed"):
        if text == kind:
            return kind
    raise AssertionError(f"no such event: {text}")


def facts(
    text: str = RIGHT,
    offsets: dict[int, Offsets] = OFFSETS,
    *,
    planned: int = 3,
    errors_logged: int = 0,
) -> Facts:
    """What the demo measures of a history."""
    return measure(
        events(text),
        offsets,
        planned=planned,
        expects_retries=True,
        hot_key=HOT,
        failing_key=FAILING,
        errors_logged=errors_logged,
    )
