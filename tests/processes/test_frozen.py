"""A member that stands still (SIGSTOP) longer than its session: others take over, it learns, it returns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.processes.fleet import Member
from tests.processes.histories import Zombie, judge
from tests.processes.load import keys_of
from tests.processes.scene import PARTITIONS, Scene

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

QUICK = [key for p in range(PARTITIONS) for key in keys_of(p, PARTITIONS, 6)]
SLOW = [keys_of(p, PARTITIONS, 1, "slow")[0] for p in range(PARTITIONS)]
WAITING = {**dict.fromkeys(QUICK, 6), **dict.fromkeys(SLOW, 3)}
_LOOK_S = 0.05


@asynccontextmanager
async def watched_commits(scene: Scene) -> AsyncIterator[list[str]]:
    """Looks at the committed offsets all the time; the list names each that went back."""
    found: list[str] = []
    ending = asyncio.Event()

    async def watch() -> None:
        highest = dict.fromkeys(range(PARTITIONS), 0)
        while not ending.is_set():
            for partition, (committed, _) in (await scene.offsets()).items():
                if committed < highest[partition]:
                    found.append(f"{partition}: {committed} after {highest[partition]}")
                highest[partition] = committed
            await asyncio.sleep(_LOOK_S)

    task = asyncio.create_task(watch(), name="watch commits")
    try:
        yield found
    finally:
        ending.set()
        await task


async def test_it_loses_what_others_have_and_harms_nothing(
    scene: Scene, report: Callable[[str, object], None]
) -> None:
    fleet = scene.fleet(slow_keys=dict.fromkeys(SLOW, 0.3))
    async with (
        fleet,
        scene.load(fleet, WAITING) as load,
        watched_commits(scene) as went_back,
    ):
        zombie = await fleet.start("zombie")
        load.begin()
        others = [await fleet.start("other-1"), await fleet.start("other-2")]
        await fleet.until_more(100, zombie, *others)
        frozen_at = fleet.freeze(zombie)
        fleet.read()
        held = zombie.held()
        assert held

        def taken() -> bool:
            told = [e for o in others for e in o.history.told("assigned", frozen_at)]
            return held <= {p for event in told for p in event.partitions}

        await fleet.until(taken, "the others have the frozen member's partitions")
        await fleet.until_more(100, *others)
        thawed_at = fleet.thaw(zombie)
        await fleet.until(lambda: bool(zombie.history.told("lost", thawed_at)), "it has learned")
        lost = zombie.history.told("lost", thawed_at)[0]
        await fleet.until(
            lambda: bool(zombie.history.told("assigned", lost.at)), "it has partitions again"
        )
        await fleet.until_more(50, zombie, *others)
        await load.end()
        await load.until_handled()
        await fleet.stop(zombie, *others)
        fleet.read()
    of_zombie = [run for run in zombie.history.runs if run.began <= lost.at]
    ends = [run.ended for run in of_zombie if run.cancelled and run.ended is not None]
    window = Zombie(zombie.name, frozen_at, max([lost.at, *ends]))
    verdict = judge(fleet.runs(), load.sent, zombies=[window])
    report("from SIGCONT until it had lost its partitions, s", round(lost.at - thawed_at, 3))
    report("from SIGCONT until its last handler had ended, s", round(window.until - thawed_at, 3))
    report("handled, run again", (verdict.handled, len(verdict.repeats)))
    assert held <= lost.partitions
    assert not verdict.lost, verdict
    assert not verdict.disorder, verdict
    assert not verdict.overlaps, verdict
    known = {(run.key, run.seq) for run in of_zombie}
    strange = [run for run in verdict.repeats if (run.key, run.seq) not in known]
    assert not strange, f"ran again, and the frozen member had never begun them: {strange}"
    assert not went_back
    assert not late_commits(zombie, frozen_at, lost.partitions)
    back_at = zombie.history.told("assigned", lost.at)[0].at
    early = [run for run in zombie.history.runs if lost.at < run.began < back_at]
    assert not early, f"begun while it had no partition: {early}"


def late_commits(zombie: Member, frozen_at: float, partitions: frozenset[int]) -> list[object]:
    """Commits that the broker took after the freeze, of partitions not assigned again by then."""
    held = frozenset(range(PARTITIONS)) - partitions
    sent_at = 0.0
    found: list[object] = []
    for event in zombie.history.events:
        if event.what == "assigned" and event.at > frozen_at:
            held |= event.partitions
        elif event.what == "commit":
            sent_at = event.at
        # One that was under way at the freeze came in time.
        elif event.what == "committed" and sent_at > frozen_at and event.partitions - held:
            found.append(event)
    return found
