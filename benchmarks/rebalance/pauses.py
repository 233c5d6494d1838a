"""How long partitions that stay with a member stand still while another one joins and leaves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.rebalance.steady import Steady, Stream
from tests.processes.histories import held_at, judge, longest_gap
from tests.processes.load import keys_of
from tests.processes.scene import PARTITIONS, Scene

if TYPE_CHECKING:
    from pathlib import Path

    from tests.processes.fleet import Fleet, Member

SLOW_S = 10.0
SLOW = {p: keys_of(p, PARTITIONS, 1, "slow")[0] for p in range(PARTITIONS)}
QUICK = [key for p in range(PARTITIONS) for key in keys_of(p, PARTITIONS, 20)]
RATE = 50.0 * PARTITIONS
"""Records a second: 50 for each partition, so one every 20 ms."""
QUIET = 1600
"""Records handled before anything happens: some four seconds."""
AFTERWARDS = 400
CLIENT = {"session_timeout": 45.0, "shutdown_timeout": 30.0, "max_concurrency": 32}


class Pauses(NamedTuple):
    """The longest time without a handler start on a partition that stayed; seconds."""

    assignor: str
    usual: float
    join: float
    leave: float
    faults: str
    """What was wrong with the run itself; empty when nothing was."""


async def measure(folder: Path, bootstrap: str, assignor: str) -> Pauses:
    """One member stays, another one joins and leaves, each time while 10 s handlers run."""
    scene = Scene(folder, bootstrap)
    await scene.begin()
    fleet = scene.fleet(
        client={**CLIENT, "assignor": assignor},
        slow_keys=dict.fromkeys(SLOW.values(), SLOW_S),
        work_s_max=0.002,
    )
    stream = Stream(QUICK, RATE)
    try:
        async with fleet, Steady(scene.broker, scene.topic, fleet, stream) as load:
            stays = await fleet.start("stays")
            load.begin()
            await fleet.until_more(QUIET // 3, stays)
            usual_from = time.monotonic()
            await fleet.until_more(QUIET, stays)
            usual = _pause(stays, usual_from, time.monotonic())

            # With the cooperative assignor the first one stays and the last one moves.
            await _slow_handlers(fleet, load, 0, PARTITIONS - 1)
            join_at = time.monotonic()
            comes = await fleet.start("comes-and-goes")
            half = PARTITIONS // 2
            await fleet.until(
                lambda: len(comes.held()) == half == len(stays.held()),
                "each has half of the partitions",
            )
            await fleet.until_more(AFTERWARDS, stays, comes)
            join = _pause(stays, join_at, time.monotonic())

            await _slow_handlers(fleet, load, min(stays.held()))
            leave_at = time.monotonic()
            await fleet.stop(comes)
            await fleet.until(
                lambda: len(stays.held()) == PARTITIONS, "the first has all of them again"
            )
            await fleet.until_more(AFTERWARDS, stays)
            leave = _pause(stays, leave_at, time.monotonic())

            await load.end()
            await load.until_handled()
            await fleet.stop(stays)
            fleet.read()
            verdict = judge(fleet.runs(), load.sent)
        wrong = verdict.lost or verdict.disorder or verdict.overlaps or verdict.repeats
        return Pauses(assignor, usual, join, leave, str(verdict) if wrong else "")
    finally:
        await scene.end()


async def _slow_handlers(fleet: Fleet, load: Steady, *partitions: int) -> None:
    """Have slow handlers begin, once the ones before have ended."""
    keys = [SLOW[p] for p in partitions]
    await fleet.until(
        lambda: all(fleet.handled_of()[key] == load.sent[key] for key in SLOW.values()),
        "the slow handlers have ended",
    )
    await load.send(keys)
    await fleet.until(
        lambda: {(r.key, r.seq) for r in fleet.runs()} >= {(k, load.sent[k]) for k in keys},
        "the slow handlers have begun",
    )


def _pause(member: Member, since: float, until: float) -> float:
    """The longest over the partitions that it had before and has now."""
    events = member.history.events
    stayed = held_at(events, since) & held_at(events, until)
    runs = member.history.runs
    return max(
        longest_gap([run.began for run in runs if run.partition == p], since, until) for p in stayed
    )
