"""Partitions that a member keeps go on while others come and go, and while slow handlers run."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.processes.fleet import Fleet, Member
from tests.processes.histories import judge, kept, longest_gap
from tests.processes.load import Load, keys_of
from tests.processes.scene import PARTITIONS, Scene

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

SLOW_S = 10.0
SLOW = {p: keys_of(p, PARTITIONS, 1, "slow")[0] for p in range(PARTITIONS)}
QUICK = [key for p in range(PARTITIONS) for key in keys_of(p, PARTITIONS, 6)]
KEPT, MOVED = 0, PARTITIONS - 1
"""A member that must give up half of its partitions keeps the first ones."""
PAUSE_S_MAX = SLOW_S / 2
"""Not a figure to be proud of: it tells a pause of a heartbeat from one as long as a slow handler."""


async def slow_handlers(fleet: Fleet, load: Load, *partitions: int) -> None:
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


def pause_s(member: Member, since: float, until: float) -> float:
    """The longest that any partition, kept from ``since`` to ``until``, stood still; seconds."""
    same = kept(member.history.events, since, until)
    assert same, "it kept nothing"
    runs = member.history.runs
    return max(longest_gap([r.began for r in runs if r.partition == p], since, until) for p in same)


async def test_kept_partitions_go_on_through_a_join_and_a_leave(
    scene: Scene, report: Callable[[str, object], None]
) -> None:
    fleet = scene.fleet(
        client={"max_concurrency": 16},
        slow_keys=dict.fromkeys(SLOW.values(), SLOW_S),
        work_s_max=0.01,
    )
    async with fleet, scene.load(fleet, dict.fromkeys(QUICK, 4)) as load:
        stays = await fleet.start("stays")
        load.begin()
        await fleet.until_more(100, stays)
        usual_from = time.monotonic()
        await fleet.until_more(500, stays)
        usual_until = time.monotonic()
        await slow_handlers(fleet, load, KEPT, MOVED)
        joins_at = time.monotonic()
        comes = await fleet.start("comes-and-goes")
        half = PARTITIONS // 2
        await fleet.until(
            lambda: len(comes.held()) == half == len(stays.held()),
            "each has half of the partitions",
        )
        await fleet.until_more(200, stays, comes)
        joined_at = time.monotonic()
        await slow_handlers(fleet, load, KEPT)
        leaves_at = time.monotonic()
        await fleet.stop(comes)
        await fleet.until(
            lambda: len(stays.held()) == PARTITIONS, "the first has all partitions again"
        )
        await fleet.until_more(200, stays)
        left_at = time.monotonic()
        await load.end()
        await load.until_handled()
        await fleet.stop(stays)
        fleet.read()
        verdict = judge(fleet.runs(), load.sent)
    join_pause_s = pause_s(stays, joins_at, joined_at)
    leave_pause_s = pause_s(stays, leaves_at, left_at)
    report("usual pause of a partition, s", round(pause_s(stays, usual_from, usual_until), 3))
    report("at the join, s", round(join_pause_s, 3))
    report("at the leave, s", round(leave_pause_s, 3))
    assert KEPT in kept(stays.history.events, joins_at, left_at)
    assert MOVED in {p for event in comes.history.told("assigned") for p in event.partitions}
    changes = comes.history.told("assigned")[0].at, comes.history.told("stopped")[0].at
    for change in changes:
        running = [r for r in stays.history.runs if r.began < change < (r.ended or 0)]
        assert {SLOW[KEPT]} <= {run.key for run in running}, "no slow handler ran meanwhile"
    assert not [run for run in fleet.runs() if run.cancelled]
    assert not verdict.lost, verdict
    assert not verdict.disorder, verdict
    assert not verdict.overlaps, verdict
    assert not verdict.repeats, verdict
    assert max(join_pause_s, leave_pause_s) < PAUSE_S_MAX
