"""What one hot key with slow handlers costs the other keys: their time from send to handler."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.rebalance.steady import Steady, Stream
from tests.processes.histories import judge
from tests.processes.load import keys_of
from tests.processes.scene import PARTITIONS, Scene

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.processes.fleet import Fleet

HOT_PARTITION = 0
HOT = keys_of(HOT_PARTITION, PARTITIONS, 1, "hot")[0]
HOT_S = 0.1
HOT_RATE = 25.0
"""Records a second; 10 can be handled, so its queue grows by 15 a second."""
OTHERS = {p: keys_of(p, PARTITIONS, 50) for p in range(PARTITIONS)}
OTHERS_RATE = 50.0 * PARTITIONS
MEASURED = 4000
"""Records of the other keys: ten seconds."""
WARM = 400
"""Records of the other keys before, which are not counted."""


class Waits(NamedTuple):
    """From send to handler, in milliseconds."""

    p50: float
    p99: float


class Cost(NamedTuple):
    """One run."""

    max_uncommitted: int
    hot: bool
    same_partition: Waits
    """Of the other keys of the hot key's partition."""
    other_partitions: Waits
    faults: str
    """What was wrong with the run itself; empty when nothing was."""


async def measure(folder: Path, bootstrap: str, max_uncommitted: int, hot: bool) -> Cost:
    """One member, keys of eight partitions at a steady rate, with the hot key or without it."""
    scene = Scene(folder, bootstrap)
    await scene.begin()
    fleet = scene.fleet(
        client={"max_uncommitted": max_uncommitted, "max_concurrency": 32, "session_timeout": 45.0},
        slow_keys={HOT: HOT_S},
        work_s_max=0.002,
    )
    keys = [key for of_one in OTHERS.values() for key in of_one]
    streams = [Stream(keys, OTHERS_RATE)]
    if hot:
        streams.append(Stream([HOT], HOT_RATE))
    try:
        async with fleet, Steady(scene.broker, scene.topic, fleet, *streams) as load:
            member = await fleet.start("member")
            await fleet.until(lambda: len(member.held()) == PARTITIONS, "it has all")
            load.begin()
            await fleet.until(lambda: _handled(fleet) >= WARM, "warm")
            since = time.monotonic()
            await fleet.until(
                lambda: load.sent.total() - load.sent[HOT] >= WARM + MEASURED, "all were sent"
            )
            until = time.monotonic()
            await load.end()
            sent = {key: count for key, count in load.sent.items() if key != HOT}
            await fleet.until(
                lambda: _handled(fleet) >= sum(sent.values()), "all but the hot key handled"
            )
            await fleet.stop(member)
            fleet.read()
            runs = [run for run in fleet.runs() if run.key != HOT]
            verdict = judge(runs, sent)
        waits: dict[bool, list[float]] = {True: [], False: []}
        for run in runs:
            sent_at = load.sent_at[run.key, run.seq]
            if since <= sent_at <= until:
                waits[run.partition == HOT_PARTITION].append(1e3 * (run.began - sent_at))
        wrong = verdict.lost or verdict.disorder or verdict.overlaps or verdict.repeats
        return Cost(
            max_uncommitted,
            hot,
            _waits(waits[True]),
            _waits(waits[False]),
            str(verdict) if wrong else "",
        )
    finally:
        await scene.end()


def _handled(fleet: Fleet) -> int:
    """Records of the other keys."""
    return sum(count for key, count in fleet.handled_of().items() if key != HOT)


def _waits(found: Sequence[float]) -> Waits:
    ordered = sorted(found)
    return Waits(ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)])
