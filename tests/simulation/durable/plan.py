"""What a run with timers, deferral and deduplication does, from one seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.simulation.plan import CALLS, Plan

if TYPE_CHECKING:
    from tests.simulation.plan import Step

STORE_CALLS = (
    "timers.open", "timers.load", "timers.add", "timers.remove", "timers.times", "timers.replace",
    "timers.clear", "timers.passed", "deferred.hashes", "deferred.defer", "deferred.append",
    "deferred.queue", "deferred.failed", "deferred.advance", "deferred.positions", "deferred.drop",
    "dedup.seen", "dedup.record",
)  # fmt: skip
WAYS = ("before", "after", "hang", "hang after", "slow")
"""How a call of a store fails: before its effect, after it, late in either way, or it only takes long."""
HANG_S = 10.0
"""A store's own deadline for a call."""

TRAPS = tuple(call for call in STORE_CALLS if call not in {"timers.load", "timers.passed"})
"""Calls at which a member may be killed, or stand still."""

CLASSES = ("graceful", "store faults", "crashes", "everything")
"""By ``seed % 4``. Only the last lets a member go on that was thrown out and does not know it yet."""

SPEED: dict[str, Any] = {"join": 3, "leave": 2, "restart": 2, "retain": 1, "unsettle": 1}
STORE: dict[str, Any] = {"store_fail": 5, "store_outage": 2}


class Failing(NamedTuple):
    """A key whose handlers fail for a while; in seconds from the beginning."""

    key: str
    from_s: float
    to_s: float


@dataclass(frozen=True)
class DurablePlan(Plan):
    """A seed's choices."""

    kind: str
    """One of ``CLASSES``."""
    failing: tuple[Failing, ...]
    timers: float
    """The share of handler calls that do something about timers."""
    ids: float
    """The share of messages that have an id."""
    twice: float
    """The share of those that are sent a second time."""
    latency_s: float
    """A call of the stores takes up to so long."""
    defer_base_s: float
    defer_max_s: float
    gate: float
    """``defer_failure_threshold``."""
    keeps_content: bool
    """Whether the store keeps deferred records themselves; else they are read from the log again."""
    little_memory: bool
    """Whether only a few timers are loaded at once, and only shortly before they are due."""

    @property
    def isolated(self) -> bool:
        """Whether keys that do not fail must go on as if nobody failed."""
        return self.graceful and not (self.bad or self.slow) and self.gate == 1.0

    @property
    def zombies(self) -> bool:
        """Whether members may go on that were thrown out and do not know it yet."""
        return self.kind == "everything"

    def fails(self, key: str, now_s: float) -> bool:
        """Whether this is a time when the handlers of a key fail."""
        return any(f.key == key and f.from_s <= now_s < f.to_s for f in self.failing)


STORMS_FROM = 10_000
"""From this seed on the stores fail all the time, in one way after the other."""


def plan_of(seed: int) -> DurablePlan:
    """The plan of a seed."""
    chance = random.Random(f"durable {seed}")
    kind = CLASSES[seed % len(CLASSES)]
    if seed >= STORMS_FROM and kind == "graceful":
        kind = "store faults"
    graceful = kind == "graceful"
    length_s = chance.choice((20.0, 40.0, 60.0))
    keys = chance.choice((1, 3, 8, 20))
    session_timeout_s = chance.choice((3.0, 10.0))
    return DurablePlan(
        seed=seed,
        graceful=graceful,
        mode="pipeline",
        topics=tuple(chance.randint(1, 3) for _ in range(chance.choice((1, 1, 2)))),
        keys=keys,
        zipf=chance.choice((0.0, 0.9, 1.5)),
        max_concurrency=chance.choice((1, 2, 4, 16)),
        max_uncommitted=chance.choice((1, 2, 8, 64)),
        max_retries=3,
        commit_interval_s=chance.choice((0.2, 0.2, 1.0, 5.0)),
        poll_interval_s=1.0,
        timeout_s=chance.choice((4.0, 20.0)),
        shutdown_timeout_s=10.0 if graceful else chance.choice((0.0, 2.0, 10.0, 10.0)),
        session_timeout_s=session_timeout_s,
        slow=chance.choice((0.0, 0.0, 0.2)),
        bad=chance.choice((0.0, 0.0, 0.1, 0.3)),
        steps=_steps(chance, length_s, kind, session_timeout_s, storm=seed >= STORMS_FROM),
        length_s=length_s,
        kind=kind,
        failing=tuple(_failing(chance, n, length_s) for n in range(keys) if chance.random() < 0.4),
        timers=chance.choice((0.0, 0.3, 0.8)),
        ids=chance.choice((0.0, 0.5, 1.0)),
        twice=chance.choice((0.2, 0.6)),
        latency_s=chance.choice((0.0, 0.004, 0.05)),
        defer_base_s=chance.choice((0.5, 1.0, 1.0)),
        defer_max_s=chance.choice((2.0, 8.0)),
        gate=chance.choice((1.0, 1.0, 0.9, 0.3)),
        keeps_content=chance.random() < 0.5,
        little_memory=chance.random() < 0.5,
    )


def _failing(chance: random.Random, number: int, length_s: float) -> Failing:
    begin_s = chance.choice((0.0, chance.uniform(0.0, length_s)))
    return Failing(f"k{number}", begin_s, begin_s + chance.choice((2.0, 10.0, 30.0)))


def _steps(
    chance: random.Random, length_s: float, kind: str, session_timeout_s: float, *, storm: bool
) -> tuple[Step, ...]:
    steps: list[Step] = [(0.0, "join", ()) for _ in range(chance.randint(1, 3))]
    steps += [
        (chance.uniform(0.0, 0.8 * length_s), "send", (chance.randint(0, 9), chance.randint(1, 16)))
        for _ in range(chance.randint(3, 9))
    ]
    weights = dict(SPEED)
    if kind != "graceful":
        weights.update(STORE, stop=1)
    if kind in {"crashes", "everything"}:
        weights.update(crash=3, trap=6)
    if kind == "everything":
        weights.update(deaf=2, expel=2, fail=2, outage=1, stop=3, add=1)
    # Not every run has everything: what is left out lets the rest go further.
    for name in chance.sample(sorted(weights), k=chance.randint(0, len(weights) // 2)):
        del weights[name]
    if storm:
        steps += _storm(chance, length_s)
    names = sorted(weights)
    for _ in range(chance.randint(2, 10) if names else 0):
        name = chance.choices(names, [weights[n] for n in names])[0]
        arguments = _arguments(chance, name, session_timeout_s, zombies=kind == "everything")
        steps.append((chance.uniform(0.5, length_s), name, arguments))
    return tuple(sorted(steps, key=lambda step: step[0]))


def _storm(chance: random.Random, length_s: float) -> list[Step]:
    """Calls of one store, or of all, fail in one way for a while, then others in another."""
    steps: list[Step] = []
    at_s = 0.0
    while at_s < length_s:
        store = chance.choice(("timers.", "deferred.", "deferred.", "dedup.", ""))
        calls = tuple(call for call in STORE_CALLS if call.startswith(store))
        if chance.random() < 0.5:
            calls = tuple(chance.sample(calls, k=max(1, len(calls) // 2)))
        lasts_s = chance.choice((2.0, 5.0, 10.0))
        ways = (chance.choice(WAYS),)
        steps.append((at_s, "store_fail", (calls, ways, chance.choice((0.2, 0.5, 0.9)), lasts_s)))
        at_s += lasts_s
    return steps


def _arguments(
    chance: random.Random, name: str, session_timeout_s: float, *, zombies: bool
) -> tuple[Any, ...]:
    which = chance.randrange(100)
    match name:
        case "restart" | "crash":
            return (which, chance.choice((0.0, 0.5, 3.0)))
        case "leave" | "expel" | "add" | "retain":
            return (which,)
        case "stop":
            # Who stands still for less than its session stays in the group.
            short = chance.choice((0.5, 0.6 * session_timeout_s))
            return (which, chance.choice((short, 6.0, 25.0)) if zombies else short)
        case "trap":
            call, when = chance.choice(TRAPS), chance.choice(("before", "after"))
            length_s = chance.choice((0.0, 0.5, 3.0))
            if zombies and chance.random() < 0.5:
                return ("stop", call, when, chance.choice((0.5, 6.0, 25.0)))
            return ("crash", call, when, length_s)
        case "deaf":
            return (which, chance.choice((0.5, 2.0, 6.0, 25.0)))
        case "fail":
            calls = tuple(chance.sample(CALLS, k=chance.randint(1, 3)))
            return (calls, chance.choice((0.1, 0.5, 1.0)), 1.0, chance.choice((0.5, 4.0, 15.0)))
        case "outage":
            return (chance.choice((1.0, 5.0, 20.0)),)
        case "unsettle":
            return (chance.choice((0.2, 1.0, 4.0)),)
        case "store_fail":
            few = tuple(chance.sample(STORE_CALLS, k=chance.randint(1, 4)))
            calls = chance.choice((few, few, few, STORE_CALLS))
            ways = tuple(chance.sample(WAYS, k=chance.randint(1, 3)))
            share = chance.choice((0.1, 0.5, 1.0))
            return (calls, ways, share, chance.choice((0.5, 4.0, 15.0, 40.0)))
        case "store_outage":
            return (chance.choice((1.0, 5.0, 20.0, 60.0)),)
    return ()
