"""Members killed by SIGKILL at any moment: nothing is skipped, and little runs again."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable, Collection

import pytest

from tests.processes import mutants
from tests.processes.fleet import Fleet, Member
from tests.processes.histories import Verdict, goes_back, judge, unsettled
from tests.processes.load import keys_of
from tests.processes.scene import PARTITIONS, Scene

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

SEED = 5
QUICK = [key for p in range(PARTITIONS) for key in keys_of(p, PARTITIONS, 6)]
SLOW = [keys_of(p, PARTITIONS, 1, "slow")[0] for p in range(PARTITIONS)]
SLOW_S = 1.0
WAITING = {**dict.fromkeys(QUICK, 6), **dict.fromkeys(SLOW, 3)}

WORKING = "at work"
ASKING = "as it asks to join"
JOINED = "as it has been let in"
DRAINING = "as it drains"
LOGGED = {ASKING: "(Re-)joining group", JOINED: "Joined group"}
"""What aiokafka says then. Between the two lies the wait for the other members to join again."""


class Kills:
    """Kills one member after the other, and keeps the books of what may run again."""

    def __init__(self, scene: Scene, fleet: Fleet, alive: list[Member], mutant: str) -> None:
        self._scene = scene
        self._fleet = fleet
        self._mutant = mutant
        self._chance = random.Random(SEED)
        self.alive = alive
        self.may_repeat: Counter[tuple[str, int]] = Counter()
        self.count = 0

    async def kill(self, moment: str) -> str:
        """Kill somebody at the moment given, and put another in its place; what it was."""
        self.count += 1
        await self._fleet.until_more(self._chance.randrange(1, 800))
        victim = await self._bring_to(moment)
        await self._fleet.kill(victim)
        # Before anybody else can have its partitions.
        committed = await self._scene.committed()
        self._fleet.read()
        history = victim.history
        assert not history.told("stopped"), "too late: it had ended in order"
        bound = unsettled(history.runs, committed)
        self.may_repeat.update(bound)
        if victim in self.alive:
            self.alive.remove(victim)
            self.alive.append(await self._start(f"after-{self.count}"))
        return f"{history.running} running, {len(bound)} may run again, of {len(history.runs)} runs"

    async def _bring_to(self, moment: str) -> Member:
        if moment in LOGGED:
            comes = self._fleet.launch(f"comes-{self.count}", mutant=self._mutant)
            await self._fleet.until(lambda: bool(comes.log_lines(LOGGED[moment])), moment)
            return comes
        victim = self._chance.choice(self.alive)
        if moment == DRAINING:
            victim.send(signal.SIGTERM)
            await self._fleet.until(lambda: bool(victim.history.told("stopping")), moment)
            assert victim.history.running, "nothing was left to drain"
        return victim

    async def _start(self, name: str) -> Member:
        return await self._fleet.start(name, mutant=self._mutant)


async def crash(
    scene: Scene,
    moments: Collection[str],
    report: Callable[[str, object], None],
    mutant: str = "",
) -> tuple[Verdict, Counter[tuple[str, int]]]:
    """Kill a member at each of ``moments``; what the files say of it, and what may run again.

    With a mutant there is one member alone: what it loses may be all that others could wait for.
    """
    # A dead member is missed after its session timeout.
    fleet = scene.fleet(client={"session_timeout": 4.0}, slow_keys=dict.fromkeys(SLOW, SLOW_S))
    async with fleet, scene.load(fleet, WAITING, SEED) as load:
        alive = [await fleet.start("member-0", mutant=mutant)]
        load.begin()
        if not mutant:
            alive += [await fleet.start(f"member-{n}") for n in (1, 2)]
        await fleet.until_more(50, *alive)
        kills = Kills(scene, fleet, alive, mutant)
        for moment in moments:
            report(f"killed {moment}", await kills.kill(moment))
            if not mutant:
                await fleet.until_more(50, *alive)
        await load.end()
        # One more of each key: when these are handled, the ones before are not just late.
        await load.send(sorted(WAITING))
        await load.until_handled()
        await fleet.stop(*kills.alive)
        fleet.read()
        verdict = judge(fleet.runs(), load.sent, died=fleet.died())
        offsets = await scene.offsets()
    assert not goes_back(fleet.events())
    assert all(found.committed == found.end for found in offsets.values()), offsets
    return verdict, kills.may_repeat


async def test_what_was_committed_stays_and_what_was_not_runs_again_once(
    scene: Scene, report: Callable[[str, object], None]
) -> None:
    moments = (WORKING, ASKING, WORKING, DRAINING, JOINED)
    verdict, may_repeat = await crash(scene, moments, report)
    report("handled, run again", (verdict.handled, len(verdict.repeats)))
    assert not verdict.lost, verdict
    assert not verdict.disorder, verdict
    assert not verdict.overlaps, verdict
    assert verdict.repeats, "nothing ran at any kill: the test shows nothing"
    too_many = Counter((run.key, run.seq) for run in verdict.repeats) - may_repeat
    assert not too_many, f"ran again, and the group knew that they were finished: {too_many}"


async def test_it_notices_what_is_committed_too_early(
    scene: Scene, report: Callable[[str, object], None]
) -> None:
    verdict, _ = await crash(scene, (WORKING,), report, mutants.DONE_WHEN_ADMITTED)
    assert verdict.lost, verdict
