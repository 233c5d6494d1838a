"""Handlers that end only when they are told to, or not even then, on a real Kafka.

At 80 % of ``shutdown_timeout`` they are cancelled, at 100 % left behind; what was cut short runs again, and
nothing else does.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.processes.fleet import Fleet, Member
from tests.processes.histories import Verdict, goes_back, judge, kept
from tests.processes.history import Run
from tests.processes.load import Load, keys_of
from tests.processes.scene import PARTITIONS, Scene

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

LIMIT_S = 3.0
CANCEL_S = 0.8 * LIMIT_S
LATE_S_MAX = 5.0
"""Never earlier; later as far as a busy machine makes it so."""
FOR_EVER_S = 300.0
STUBBORN_S = 10.0
"""Longer than all limits. The process ends only after that: asyncio waits for its tasks."""

# A member that must give up half of its partitions keeps the first ones.
STAYS, OBEYS_IN, SWALLOWS_IN = 0, PARTITIONS - 1, PARTITIONS - 2
(OBEYS,) = keys_of(OBEYS_IN, PARTITIONS, 1, "obeys")
(SWALLOWS,) = keys_of(SWALLOWS_IN, PARTITIONS, 1, "swallows")
CUT_SHORT = {(OBEYS, 1), (SWALLOWS, 1)}
QUICK = [key for p in range(PARTITIONS) for key in keys_of(p, PARTITIONS, 2)]


class World:
    """A member with handlers that do not end, beside a load of quick ones."""

    def __init__(self, scene: Scene, report: Callable[[str, object], None]) -> None:
        self.fleet: Fleet = scene.fleet(client={"shutdown_timeout": LIMIT_S})
        self.load: Load = scene.load(self.fleet, dict.fromkeys(QUICK, 3))
        self.report = report
        self._scene = scene

    async def start_slow(self) -> Member:
        member = await self.fleet.start(
            "slow", slow_keys={OBEYS: FOR_EVER_S}, stubborn_keys={SWALLOWS: STUBBORN_S}
        )
        # The second of each is queued behind the first, and must not begin there.
        await self.load.send([OBEYS, SWALLOWS] * 2)
        self.load.begin()
        await self.fleet.until(lambda: self.begun(member) == CUT_SHORT, "both have begun")
        await self.fleet.until_more(50, member)
        return member

    def begun(self, member: Member) -> set[tuple[str, int]]:
        return {(r.key, r.seq) for r in member.history.runs if r.key in {OBEYS, SWALLOWS}}

    def run_of(self, member: Member, key: str) -> Run:
        (run,) = [run for run in member.history.runs if run.key == key]
        return run

    async def finish(self, *members: Member) -> Verdict:
        await self.load.end()
        await self.load.until_handled()
        await self.fleet.stop(*members)
        self.fleet.read()
        assert not goes_back(self.fleet.events())
        offsets = await self._scene.offsets()
        assert all(found.committed == found.end for found in offsets.values()), offsets
        return judge(self.fleet.runs(), self.load.sent)

    def check_limits(
        self, member: Member, obeys_from: float, swallows_from: float, until: float
    ) -> None:
        """:param until: when the one that swallows was given up."""
        obeyed = self.run_of(member, OBEYS)
        assert obeyed.cancelled
        assert obeyed.ended is not None
        (told,) = [e for e in member.history.told("told", swallows_from) if e.at <= until]
        for what, took_s, limit_s in (
            ("cancelled and obeyed", obeyed.ended - obeys_from, CANCEL_S),
            ("cancelled and swallowed", told.at - swallows_from, CANCEL_S),
            ("left behind", until - swallows_from, LIMIT_S),
        ):
            self.report(f"{what} after, s", round(took_s, 3))
            assert limit_s <= took_s <= limit_s + LATE_S_MAX, what
        swallowed = self.run_of(member, SWALLOWS)
        assert swallowed.ended is not None
        assert swallowed.ended > until, "it was not left behind, it had ended"
        assert self.begun(member) == CUT_SHORT


def check(verdict: Verdict) -> None:
    """What was cut short has run again, once, and nothing else."""
    assert not verdict.lost, verdict
    assert not verdict.disorder, verdict
    assert sorted((run.key, run.seq) for run in verdict.repeats) == sorted(CUT_SHORT), verdict


async def test_a_program_that_is_told_to_end(
    scene: Scene, report: Callable[[str, object], None]
) -> None:
    world = World(scene, report)
    async with world.fleet, world.load:
        member = await world.start_slow()
        await world.fleet.stop(member)
        after = await world.fleet.start("after")
        verdict = await world.finish(after)
    (began,), (ended,) = member.history.told("stopping"), member.history.told("stopped")
    world.check_limits(member, began.at, began.at, ended.at)
    check(verdict)
    assert not verdict.overlaps, verdict


async def test_a_member_whose_partitions_move(
    scene: Scene, report: Callable[[str, object], None]
) -> None:
    world = World(scene, report)
    async with world.fleet, world.load:
        member = await world.start_slow()
        joins = await world.fleet.start("joins")
        await world.fleet.until(
            lambda: {OBEYS_IN, SWALLOWS_IN} <= joins.held(), "the partitions have moved"
        )
        await world.fleet.until_more(50, member, joins)
        verdict = await world.finish(member, joins)
    events = member.history.events
    joined_at = joins.history.told("assigned")[0].at
    begins = {p: e.at for e in events if e.what == "revoking" for p in e.partitions}
    ends = {p: e.at for e in events if e.what == "revoked" for p in e.partitions}
    world.check_limits(member, begins[OBEYS_IN], begins[SWALLOWS_IN], ends[SWALLOWS_IN])
    check(verdict)
    # The one that was left behind still runs when the new owner begins; nobody else meets anybody.
    assert {run.key for pair in verdict.overlaps for run in pair} <= {SWALLOWS}, verdict
    assert STAYS in kept(events, member.history.runs[0].began, joined_at)
    cancelled = {run.key for run in world.fleet.runs() if run.cancelled}
    assert cancelled == {OBEYS}, "only what moves is cut short"
