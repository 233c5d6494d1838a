"""What a run does: everything that chance decides beforehand, from one seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, TypeAlias

Step: TypeAlias = "tuple[float, str, tuple[Any, ...]]"
"""When (in seconds from the beginning), what, with what."""

MODES = ("pipeline", "pipeline", "low-latency", "best-effort")
CALLS = ("start", "poll", "commit", "reply", "send")
"""Of the broker seam, as far as the consume path makes them.

A ``reply`` is that of a commit: the broker has it, and the member does not know.
"""
KINDS = ("message",) * 12 + ("undecodable", "filtered", "echo", "tombstone")

LIVENESS_S = 150.0
"""After the last fault all records are handled and committed within this time."""


@dataclass(frozen=True)
class Plan:
    """A seed's choices; times in seconds."""

    seed: int
    graceful: bool
    """Only what must run nothing twice: joins, leaves, restarts, handlers of any kind."""
    mode: str
    topics: tuple[int, ...]
    """Partitions of each topic at the beginning."""
    keys: int
    zipf: float
    max_concurrency: int
    max_uncommitted: int
    max_retries: int
    commit_interval_s: float
    poll_interval_s: float
    timeout_s: float
    shutdown_timeout_s: float
    session_timeout_s: float
    slow: float
    """The share of slow handlers."""
    bad: float
    """The share of failing and misbehaving ones."""
    steps: tuple[Step, ...]
    length_s: float
    """When the faults end."""

    def limit_of(self, member: str) -> int:
        """A member's own ``max_uncommitted``: half of them have half of it, as in a rolling change.

        So what one has noted as finished can be more than the next one admits at a time.
        """
        half = int(member[1:]) % 2 == 1
        return max(1, self.max_uncommitted // 2) if half else self.max_uncommitted


def plan_of(seed: int) -> Plan:
    """The plan of a seed. Every fourth one is graceful."""
    chance = random.Random(f"plan {seed}")
    graceful = seed % 4 == 0
    length_s = chance.choice((20.0, 40.0, 60.0))
    return Plan(
        seed=seed,
        graceful=graceful,
        mode=chance.choice(MODES),
        topics=tuple(chance.randint(1, 4) for _ in range(chance.choice((1, 1, 2)))),
        keys=chance.choice((1, 3, 8, 30)),
        zipf=chance.choice((0.0, 0.9, 1.5)),
        max_concurrency=chance.choice((1, 2, 4, 16)),
        max_uncommitted=chance.choice((1, 2, 4, 8, 64)),
        max_retries=chance.choice((0, 1, 3)),
        commit_interval_s=chance.choice((0.0, 0.1, 1.0, 5.0)),
        poll_interval_s=chance.choice((0.1, 0.1, 5.0)),
        timeout_s=chance.choice((4.0, 20.0)),
        shutdown_timeout_s=chance.choice((0.0, 2.0, 10.0, 10.0)) if not graceful else 10.0,
        session_timeout_s=chance.choice((3.0, 10.0)),
        slow=chance.choice((0.0, 0.1, 0.4)),
        bad=chance.choice((0.0, 0.1, 0.4)),
        steps=_steps(chance, length_s, graceful=graceful),
        length_s=length_s,
    )


def _steps(chance: random.Random, length_s: float, *, graceful: bool) -> tuple[Step, ...]:
    steps: list[Step] = [(0.0, "join", ()) for _ in range(chance.randint(1, 3))]
    steps += [
        (chance.uniform(0.0, 0.9 * length_s), "send", (chance.randint(0, 9), chance.randint(1, 25)))
        for _ in range(chance.randint(5, 14))
    ]
    weights = {"join": 3, "leave": 2, "restart": 2, "add": 1, "retain": 1, "unsettle": 1}
    if not graceful:
        weights.update(crash=2, stop=2, deaf=2, expel=2, fail=3, outage=1)
        # Not every run has everything: what is left out lets the rest go further.
        for name in chance.sample(sorted(weights), k=chance.randint(0, 6)):
            del weights[name]
    names = sorted(weights)
    for _ in range(chance.randint(2, 12) if names else 0):
        name = chance.choices(names, [weights[n] for n in names])[0]
        steps.append((chance.uniform(0.5, length_s), name, _arguments(chance, name)))
    return tuple(sorted(steps, key=lambda step: step[0]))


def _arguments(chance: random.Random, name: str) -> tuple[Any, ...]:
    which = chance.randrange(100)
    match name:
        case "restart" | "crash":
            return (which, chance.choice((0.0, 0.5, 3.0)))
        case "leave" | "expel" | "add" | "retain":
            return (which,)
        case "stop" | "deaf":
            return (which, chance.choice((0.5, 2.0, 6.0, 25.0)))
        case "fail":
            calls = tuple(chance.sample(CALLS, k=chance.randint(1, 3)))
            retriable = chance.choice((1.0, 1.0, 0.5))
            return (
                calls,
                chance.choice((0.1, 0.5, 1.0)),
                retriable,
                chance.choice((0.5, 4.0, 15.0)),
            )
        case "outage":
            return (chance.choice((1.0, 5.0, 20.0)),)
        case "unsettle":
            # Shorter than a final commit is tried for, so that this too is in order.
            return (chance.choice((0.2, 1.0, 4.0)),)
    return ()
