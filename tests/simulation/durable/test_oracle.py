"""A test of the oracle: short histories with one thing wrong in each."""

from __future__ import annotations

import dataclasses

import pytest

from prosody.broker.protocol import TopicPartition
from tests.simulation.durable.oracle import DurableOracle
from tests.simulation.durable.plan import plan_of
from tests.simulation.history import Event

TP = TopicPartition("t0", 0)
PLAN = dataclasses.replace(
    plan_of(1), max_concurrency=4, max_uncommitted=8, commit_interval_s=1.0, failing=()
)


def sent(*notes: str) -> list[Event]:
    return [Event(0, "produced", "", TP, n, "k", n, note=note) for n, note in enumerate(notes)]


def got(at_s: float, member: str = "m0", offset: int = 0) -> Event:
    return Event(at_s, "assigned", member, TP, offset)


def ran(
    from_s: float, to_s: float, offset: int, note: str = "success", member: str = "m0"
) -> list[Event]:
    return [
        Event(from_s, "start", member, TP, offset, "k", offset, epoch=1),
        Event(to_s, "end", member, TP, offset, "k", offset, epoch=1, note=note),
    ]


def fired(from_s: float, to_s: float, due: int, note: str = "success") -> list[Event]:
    return [
        Event(from_s, "fires", "m0", TP, key="k", epoch=1, due=due),
        Event(to_s, "fired", "m0", TP, key="k", epoch=1, due=due, note=note),
    ]


def calling(offset: int, at_s: float, call: str, due: int | None, said: str = "ok") -> list[Event]:
    """A message whose handler makes a call about timers."""
    first, last = ran(at_s, at_s + 0.2, offset)
    of = {"tp": TP, "key": "k", "epoch": 1, "due": due}
    return [
        first,
        Event(at_s, "calls", "m0", **of, note=call),  # type: ignore[arg-type]
        Event(at_s + 0.1, "called", "m0", **of, note=f"{call} {said}"),  # type: ignore[arg-type]
        last,
    ]


def row(at_s: float, offset: int, what: str = "row") -> Event:
    return Event(at_s, what, "m0", TP, offset, "k")


def committed(at_s: float, offset: int) -> Event:
    return Event(at_s, "commit", "m0", TP, offset)


def lost(at_s: float, member: str = "m0") -> Event:
    return Event(at_s, "crash", member)


M, ONE = "message", "message one"

GOOD: dict[str, list[Event]] = {
    "one after the other": [*sent(M, M), got(0), *ran(1, 2, 0), *ran(2, 3, 1), committed(4, 2)],
    "deferred, committed, and done": [
        *sent(M, M), got(0), *ran(1, 2, 0, "transient"), row(2, 0), row(2, 1), committed(3, 2),
        *ran(4, 5, 0), row(5, 0, "unrow"), *ran(5, 6, 1), row(6, 1, "unrow"),
    ],
    "again after a crash": [
        *sent(M), got(0), *ran(1, 2, 0), lost(2.5), got(3, "m1"), *ran(4, 5, 0, member="m1"),
    ],
    "set, and fired": [*sent(M), got(0), *calling(0, 1, "schedule", 5), *fired(5, 6, 5)],
    "failed, and fired again": [
        *sent(M), got(0), *calling(0, 1, "schedule", 5), *fired(5, 6, 5, "transient"),
        *fired(7, 8, 5),
    ],
    "cancelled, set again, and fired": [
        *sent(M, M, M), got(0), *calling(0, 1, "schedule", 5), *calling(1, 2, "unschedule", 5),
        *calling(2, 3, "schedule", 5), *fired(5, 6, 5),
    ],
    "a call that failed may have worked": [
        *sent(M), got(0), *calling(0, 1, "schedule", 5, "failed"), *fired(5, 6, 5),
    ],
    "a second copy that is passed over": [
        *sent(ONE, ONE, M), got(0), *ran(1, 2, 0), Event(2, "recorded", "m0", note="one"),
        *ran(3, 4, 2), committed(5, 3),
    ],
}  # fmt: skip

WRONG: dict[str, tuple[str, list[Event]]] = {
    "a later message comes first": ("L1", [*sent(M, M), got(0), *ran(1, 2, 1)]),
    "a message overtakes a deferred one": (
        "L1",
        [*sent(M, M), got(0), *ran(1, 2, 0, "transient"), row(2, 0), *ran(3, 4, 1)],
    ),
    "a timer fires beside a message": (
        "L2",
        [
            *sent(M, M), got(0), *calling(0, 1, "schedule", 3), ran(2, 9, 1)[0], *fired(3, 4, 3),
        ],
    ),
    "committed, and neither done nor deferred": (
        "L3",
        [*sent(M), got(0), *ran(1, 2, 0, "transient"), committed(3, 1)],
    ),
    "taken out of the store before it is done": (
        "L0",
        [*sent(M), got(0), *ran(1, 2, 0, "transient"), row(2, 0), row(3, 0, "unrow")],
    ),
    "again in the same assignment": (
        "L6",
        [
            *sent(M), got(0), Event(1, "store", "m0", note="deferred.advance before"),
            *ran(1, 2, 0), *ran(3, 4, 0),
        ],
    ),
    "again, long after it could have said that it was done": (
        "L6",
        [*sent(M), got(0), *ran(1, 2, 0), lost(9), got(10, "m1"), *ran(11, 12, 0, member="m1")],
    ),
    "a second copy is handled": (
        "dedup",
        [*sent(ONE, ONE), got(0), *ran(1, 2, 0), *ran(3, 4, 1)],
    ),
    "a second copy is handled elsewhere": (
        "dedup",
        [
            *sent(ONE, ONE), got(0), *ran(1, 2, 0), Event(2, "recorded", "m0", note="one"),
            committed(3, 1), lost(4), got(5, "m1", 1), *ran(6, 7, 1, member="m1"),
        ],
    ),
    "committed before it is recorded": (
        "dedup",
        [*sent(ONE), got(0), *ran(1, 2, 0), committed(3, 1)],
    ),
    "recorded before it is handled": (
        "dedup",
        [*sent(ONE), got(0), Event(1, "recorded", "m0", note="one")],
    ),
    "a timer is early": (
        "L6",
        [*sent(M), got(0), *calling(0, 1, "schedule", 5), *fired(4.9, 6, 5)],
    ),
    "a timer fires twice": (
        "L6",
        [*sent(M), got(0), *calling(0, 1, "schedule", 5), *fired(5, 6, 5), *fired(7, 8, 5)],
    ),
    "a timer fires that was never set": ("L6", [got(0), *fired(5, 6, 5)]),
    "a timer fires that was cancelled": (
        "L6",
        [
            *sent(M, M), got(0), *calling(0, 1, "schedule", 5), *calling(1, 2, "unschedule", 5),
            *fired(5, 6, 5),
        ],
    ),
    "a timer fires that was moved": (
        "L6",
        [
            *sent(M, M), got(0), *calling(0, 1, "schedule", 5), *calling(1, 2, "move", 7),
            *fired(5, 6, 5),
        ],
    ),
    "a timer is not listed": (
        "L6",
        [
            *sent(M, M), got(0), *calling(0, 1, "schedule", 5),
            *calling(1, 2, "scheduled", None, "ok 7"),
        ],
    ),
}  # fmt: skip


def judged(events: list[Event]) -> DurableOracle:
    oracle = DurableOracle(PLAN)
    for event in events:
        oracle.see(event)
    return oracle


@pytest.mark.parametrize("name", GOOD)
def test_what_is_right(name: str) -> None:
    oracle = judged(GOOD[name])
    assert oracle.verdict() == []
    assert oracle.unfinished() == []


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong(name: str) -> None:
    kind, events = WRONG[name]
    faults = judged(events).verdict()
    assert faults
    assert faults[0].partition(" ")[2].startswith(kind)


def test_what_is_missing_at_the_end() -> None:
    oracle = judged(
        [*sent(M, M, M), got(0), *calling(0, 1, "schedule", 5), *ran(2, 3, 1, "transient")]
    )
    assert oracle.verdict() == []
    assert oracle.unfinished() == [
        "t0:0@1 (k#1) is not done",
        "t0:0@2 (k#2) is not done",
        "timer t0:0 k due 5 has not fired",
    ]
