"""Members that join, leave and come back in order: nothing runs twice, without deduplication."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.processes import mutants
from tests.processes.histories import Verdict, goes_back, judge
from tests.processes.load import keys_of
from tests.processes.scene import PARTITIONS, Scene

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

# Each slow key leaves a queue behind that the other keys of its partition overtake: what is handed over
# then has much that finished ahead of the committed offset.
SLOW = [keys_of(p, PARTITIONS, 1, "slow")[0] for p in range(PARTITIONS)]
QUICK = [key for p in range(PARTITIONS) for key in keys_of(p, PARTITIONS, 6)]
WAITING = {**dict.fromkeys(QUICK, 6), **dict.fromkeys(SLOW, 3)}
SLOW_S = 0.3


async def come_and_go(scene: Scene, assignor: str, mutant: str = "") -> tuple[Verdict, int]:
    """Three members join one after the other, two leave, one comes back; what the files say of it.

    The second figure counts partitions that were begun with something finished ahead.
    """
    fleet = scene.fleet(client={"assignor": assignor}, slow_keys=dict.fromkeys(SLOW, SLOW_S))
    async with fleet, scene.load(fleet, WAITING) as load:
        first = await fleet.start("first", mutant=mutant)
        load.begin()
        await fleet.until_more(100, first)
        second = await fleet.start("second", mutant=mutant)
        await fleet.until_more(100, first, second)
        third = await fleet.start("third", mutant=mutant)
        await fleet.until_more(100, first, second, third)
        await fleet.stop(second)
        await fleet.until_more(100, first, third)
        # The one that has been there longest leads the group.
        await fleet.stop(first)
        await fleet.until_more(100, third)
        again = await fleet.start("first-again", mutant=mutant)
        await fleet.until_more(100, third, again)
        await load.end()
        await load.until_handled()
        await fleet.stop(third, again)
        fleet.read()
        verdict = judge(fleet.runs(), load.sent)
        assert not goes_back(fleet.events())
        begun = [event for event in fleet.events() if event.what == "assigned"]
        ahead = sum(bool(note) for event in begun for _, note in event.offsets.values())
        if not mutant:
            offsets = await scene.offsets()
            assert all(o.committed == o.end for o in offsets.values()), offsets
            assert not [event for event in fleet.events() if event.what == "lost"]
            assert not [run for run in fleet.runs() if not run.finished]
    return verdict, ahead


@pytest.mark.parametrize("assignor", ["cooperative", "sticky"])
async def test_nothing_is_lost_repeated_reordered_or_run_twice_at_a_time(
    scene: Scene, assignor: str, report: Callable[[str, object], None]
) -> None:
    verdict, ahead = await come_and_go(scene, assignor)
    report("handled", verdict.handled)
    report("partitions begun with something finished ahead", ahead)
    assert not verdict.lost, verdict
    assert not verdict.disorder, verdict
    assert not verdict.overlaps, verdict
    assert not verdict.repeats, verdict
    assert ahead, "nothing had finished ahead at any hand-over: the test shows nothing about it"


@pytest.mark.parametrize("mutant", [mutants.NO_DRAIN, mutants.NO_METADATA, mutants.NO_CLAIM])
async def test_it_notices_a_rule_that_is_switched_off(scene: Scene, mutant: str) -> None:
    verdict, _ = await come_and_go(scene, "cooperative", mutant)
    assert verdict.repeats, verdict
