"""The rows, as data: who does what, with how many messages. Slow ones get fewer messages."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from benchmarks.compare import rivals as r
from benchmarks.compare.records import Work

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.compare.rivals import Entrant

BACKLOG, LIVE, REBALANCE = "backlog", "live", "rebalance"
QUICK_SHARE = 20
QUICK_LEAST = 300
QUICK_LIVE = 3
WAITS_S = (0.001, 0.010, 0.100)
AT_ONCE = (32, 256, 1000)
LEAST_UNCOMMITTED = 64
"""The default of both packages."""
WAITING_KEYS = 10_000
WAITING_FOR_S = 1.2
"""A row of handlers that wait takes this long if concurrency alone limits it."""
WAITING_MAX = 20_000
EVENTS_RATE = 3500
"""Of prosody-events, messages a second at its best: sets how many it gets."""


@dataclass(frozen=True)
class Case:
    """One table: the same work for each of its entrants."""

    row: str
    """The letter."""
    title: str
    entrants: tuple[tuple[Entrant, int], ...]
    """With the number of messages of each; of a live one none, it takes what comes."""
    work: Work = field(default_factory=lambda: Work(0))
    scene: str = BACKLOG
    delay_s: float = 0.0
    job: dict[str, Any] = field(default_factory=dict)
    """More for the scripts."""
    seconds: float = 0.0
    """Live: how long messages come."""
    rate: float = 0.0
    """Live: messages a second; 0: half of what the slowest does at its best."""
    hot_rate: float = 0.0

    @property
    def key(self) -> str:
        return f"{self.row}: {self.title}"


def cases() -> list[Case]:
    return [
        Case("a", "no-op handler, defaults of each, 1,000 keys uniform", (
            (r.DEFAULTS, 300_000), (r.DEFAULTS_PURE, 100_000), (r.EVENTS_DEFAULTS, 1500),
            (r.FASTSTREAM, 20_000), (r.QUIX, 100_000), (r.BARE, 600_000), (r.TASKS, 100_000),
            (r.CONFLUENT, 200_000),
        )),
        Case("b", "no-op handler, best settings of each, 1,000 keys uniform", (
            (r.BEST, 100_000), (r.BEST_PURE, 50_000), (r.EVENTS_BEST, 15_000),
            (r.FASTSTREAM_BEST, 30_000), (r.FASTSTREAM_PARTITIONS, 2000), (r.QUIX_BEST, 100_000),
            (r.BARE_BEST, 200_000), (r.CONFLUENT_BEST, 200_000),
        )),
        *(waiting(delay_s, at_once) for delay_s in WAITS_S for at_once in AT_ONCE),
        Case("d", "no-op handler, best settings, 1,000 keys Zipf 1.0", (
            (r.BEST, 100_000), (r.EVENTS_BEST, 12_000), (r.FASTSTREAM_BEST, 30_000),
            (r.BARE_BEST, 200_000),
        ), Work(0, "zipf")),
        Case("d", "no-op handler, best settings, one key", (
            (r.BEST, 30_000), (r.EVENTS_BEST, 3000), (r.FASTSTREAM_BEST, 30_000),
            (r.BARE_BEST, 200_000),
        ), Work(0, "one")),
        Case("e", "an id each over Cassandra, no-op handler, Zipf 1.0", (
            (r.DEFAULTS, 50_000), (r.EVENTS_DEFAULTS, 1500), (r.BEST_ASKING, 50_000),
            (r.EVENTS_BEST, 12_000),
        ), Work(0, "zipf", ids=True)),
        Case("f", "2 % of 1,000 keys fail, best settings, messages of the others", (
            (r.BEST, 50_000), (r.EVENTS_BEST, 12_000), (r.FASTSTREAM_BEST, 30_000),
        ), Work(0, fails=True)),
        Case("g", "one hot key with 12 messages/s of 100 ms, latency of 1,000 other keys at 200/s", (
            (r.BEST, 0), (r.EVENTS_BEST, 0), (r.FASTSTREAM_BEST, 0), (r.workers(256), 0),
            (r.BARE_BEST, 0), (r.unordered(256), 0),
        ), scene=LIVE, seconds=6.0, rate=200.0, hot_rate=12.0, job={"hot_delay_s": 0.1}),
        Case("h", "latency from the intended send time, open loop, best settings", (
            (r.BEST, 0), (r.EVENTS_BEST, 0), (r.FASTSTREAM_BEST, 0), (r.QUIX_BEST, 0),
            (r.BARE_BEST, 0), (r.TASKS, 0), (r.CONFLUENT, 0),
        ), scene=LIVE, seconds=10.0),
        Case("i", "start, a member that joins and leaves, and the end; defaults, heartbeat 1 s", tuple(
            (entrant, 0) for entrant in r.REBALANCED
        ), scene=REBALANCE, rate=200.0),
        Case("j", "100,000 distinct keys, each once, best settings", (
            (r.BEST, 100_000), (r.EVENTS_BEST, 100_000), (r.FASTSTREAM_BEST, 100_000),
            (r.QUIX_BEST, 100_000), (r.BARE_BEST, 100_000), (r.CONFLUENT_BEST, 100_000),
        ), Work(0, "all")),
    ]  # fmt: skip


def waiting(delay_s: float, at_once: int) -> Case:
    """Handlers that wait, with the same number at a time for each."""
    count = min(WAITING_MAX, int(WAITING_FOR_S * at_once / delay_s))
    return Case(
        "c",
        f"handlers wait {delay_s * 1e3:g} ms, {at_once:,} at once, {WAITING_KEYS:,} keys uniform",
        (
            (waiter(r.OURS, at_once, max(at_once, LEAST_UNCOMMITTED)), count),
            (r.unordered(at_once), count),
            (
                waiter(r.EVENTS, at_once, r.MOST_UNCOMMITTED),
                min(count, int(EVENTS_RATE * WAITING_FOR_S)),
            ),
            (r.workers(at_once), min(count, 6000)),
        ),
        Work(0, distinct=WAITING_KEYS),
        delay_s=delay_s,
    )


def waiter(rival: str, at_once: int, uncommitted: int) -> Entrant:
    """One with so many handlers at a time."""
    return r.prosody(
        rival, f"{at_once:,} at once", max_concurrency=at_once, max_uncommitted=uncommitted
    )


def in_turn(case: Case, number: int, rounds: int) -> tuple[tuple[Entrant, int], ...]:
    """The entrants of round ``number``, from 0: each begins elsewhere, so that nobody is always first, when
    the servers have just done something else."""
    first = number * len(case.entrants) // rounds
    return case.entrants[first:] + case.entrants[:first]


def chosen(rows: Iterable[str], *, quick: bool) -> list[Case]:
    """The cases of these rows; all of them with no row. ``quick``: a smoke run."""
    letters = set(rows)
    found = [case for case in cases() if not letters or case.row in letters]
    if not quick:
        return found
    left_out = {waiting(w, n).key for w in WAITS_S for n in AT_ONCE} - {
        waiting(w, n).key for w, n in zip(WAITS_S, AT_ONCE, strict=True)
    }
    return [smaller(case) for case in found if case.key not in left_out]


def smaller(case: Case) -> Case:
    """The same with a twentieth of the messages; live for two seconds, and for three entrants."""
    entrants = case.entrants if case.scene == BACKLOG else case.entrants[:QUICK_LIVE]
    return replace(
        case,
        entrants=tuple(
            (entrant, min(count, max(QUICK_LEAST, count // QUICK_SHARE)))
            for entrant, count in entrants
        ),
        seconds=min(case.seconds, 2.0),
    )
