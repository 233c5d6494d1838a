"""Members killed by SIGKILL at any moment: nothing is skipped, and little runs again."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from tests.processes.histories import judge, unsettled
from tests.processes.load import keys_of
from tests.processes.scene import PARTITIONS, Scene

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

SEED = 5
KILLS = 3
QUICK = [key for p in range(PARTITIONS) for key in keys_of(p, PARTITIONS, 6)]
SLOW = [keys_of(p, PARTITIONS, 1, "slow")[0] for p in range(PARTITIONS)]
WAITING = {**dict.fromkeys(QUICK, 6), **dict.fromkeys(SLOW, 3)}


async def test_what_was_committed_stays_and_what_was_not_runs_again_once(
    scene: Scene, report: Callable[[str, object], None]
) -> None:
    chance = random.Random(SEED)
    # A dead member is missed after its session timeout.
    fleet = scene.fleet(client={"session_timeout": 4.0}, slow_keys=dict.fromkeys(SLOW, 0.3))
    may_repeat: Counter[tuple[str, int]] = Counter()
    async with fleet, scene.load(fleet, WAITING, SEED) as load:
        alive = [await fleet.start("member-0")]
        load.begin()
        alive += [await fleet.start(f"member-{n}") for n in (1, 2)]
        await fleet.until_more(50, *alive)
        for number in range(KILLS):
            await fleet.until_more(chance.randrange(1, 800))
            victim = alive.pop(chance.randrange(len(alive)))
            await fleet.kill(victim)
            # Before anybody else can have its partitions.
            committed = await scene.committed()
            fleet.read()
            bound = unsettled(victim.history.runs, committed)
            may_repeat.update(bound)
            report(
                f"kill {number + 1} of {victim.name}",
                f"{victim.history.running} running, {len(bound)} may run again, "
                f"of {len(victim.history.runs)} runs",
            )
            alive.append(await fleet.start(f"{victim.name}-after-{number + 1}"))
            await fleet.until_more(50, *alive)
        await load.end()
        await load.until_handled()
        await fleet.stop(*alive)
        fleet.read()
        verdict = judge(fleet.runs(), load.sent, died=fleet.died())
        offsets = await scene.offsets()
    report("handled, run again", (verdict.handled, len(verdict.repeats)))
    assert not verdict.lost, verdict
    assert not verdict.disorder, verdict
    assert not verdict.overlaps, verdict
    assert verdict.repeats, "nothing ran at any kill: the test shows nothing"
    too_many = Counter((run.key, run.seq) for run in verdict.repeats) - may_repeat
    assert not too_many, f"ran again, and the group knew that they were finished: {too_many}"
    assert all(found.committed == found.end for found in offsets.values()), offsets
