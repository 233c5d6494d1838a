"""A member that stands still longer than its session: others take over, it learns, it returns.

It is stopped (SIGSTOP), or a handler blocks its event loop, heartbeats included. Either way the group takes
it for dead.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf
from typing import NamedTuple

import pytest

from tests.processes import mutants
from tests.processes.fleet import Fleet, Member
from tests.processes.histories import Verdict, Zombie, judge, unsettled
from tests.processes.history import Event
from tests.processes.load import Load, keys_of
from tests.processes.scene import PARTITIONS, Scene

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

SESSION_S = 4.0
QUICK = [key for p in range(PARTITIONS) for key in keys_of(p, PARTITIONS, 6)]
# Longer than it takes to learn of the loss: some of these run when it comes.
SLOW = [keys_of(p, PARTITIONS, 1, "slow")[0] for p in range(PARTITIONS)]
SLOW_S = 2.0
BLOCKING = [keys_of(p, PARTITIONS, 1, "blocking")[0] for p in range(PARTITIONS)]
BLOCK_S = 2 * SESSION_S
WAITING = {**dict.fromkeys(QUICK, 6), **dict.fromkeys(SLOW, 2)}
LEARN_S_MAX = SESSION_S
"""How long a member that goes on may believe that it has what others have."""
STOP_S_MAX = 1.0
"""From when it knows to the end of its last handler there: these obey when they are cancelled."""
BEGUN, GONE_ON = "begun after the loss", "gone on after the loss"
_LOOK_S = 0.05


class Standstill(NamedTuple):
    """What is known when a member stands still: it has written all that it is going to."""

    since: float
    held: frozenset[int]
    may_repeat: Counter[tuple[str, int]]
    """What the group does not know to be finished."""


class Aftermath(NamedTuple):
    """What became of it."""

    still: Standstill
    woke_at: float
    lost: Event
    verdict: Verdict
    faults: list[str]


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


async def freeze(fleet: Fleet, load: Load, zombie: Member) -> float:
    """SIGSTOP; since when."""
    return fleet.freeze(zombie)


async def block(fleet: Fleet, load: Load, zombie: Member) -> float:
    """Send it a record whose handler blocks; since when."""
    key = BLOCKING[min(zombie.held())]
    await load.send([key])

    def begun() -> list[float]:
        return [run.began for run in zombie.history.runs if run.key == key]

    await fleet.until(lambda: bool(begun()), "the handler that blocks has begun")
    return begun()[0]


async def stand_still(
    scene: Scene, how: Callable[[Fleet, Load, Member], Awaitable[float]], mutant: str = ""
) -> tuple[Member, Aftermath]:
    """One of three members stands still and goes on; what the files say of it."""
    fleet = scene.fleet(
        client={"session_timeout": SESSION_S}, slow_keys=dict.fromkeys(SLOW, SLOW_S)
    )
    async with fleet, scene.load(fleet, WAITING) as load:
        zombie = await fleet.start(
            "zombie", mutant=mutant, blocking_keys=dict.fromkeys(BLOCKING, BLOCK_S)
        )
        load.begin()
        others = [await fleet.start("other-1"), await fleet.start("other-2")]
        await fleet.until_more(100, zombie, *others)
        async with watched_commits(scene) as went_back:
            since = await how(fleet, load, zombie)
            # Before anybody else can have its partitions.
            committed = await scene.committed()
            fleet.read()
            bound = Counter(unsettled(zombie.history.runs, committed))
            still = Standstill(since, zombie.held(), bound)
            assert still.held

            def taken() -> bool:
                told = [e for o in others for e in o.history.told("assigned", since)]
                return still.held <= {p for event in told for p in event.partitions}

            await fleet.until(taken, "the others have its partitions")
            if how is freeze:
                await fleet.until_more(100, *others)
                woke_at = fleet.thaw(zombie)
            else:
                woke_at = since + BLOCK_S
            await fleet.until(lambda: bool(zombie.history.told("lost", woke_at)), "it has learned")
            lost = zombie.history.told("lost", woke_at)[0]
            await fleet.until(
                lambda: bool(zombie.history.told("assigned", lost.at)), "it has partitions again"
            )
            await fleet.until_more(50, zombie, *others)
            await load.end()
            await load.until_handled()
            await fleet.stop(zombie, *others)
            fleet.read()
    window = Zombie(zombie.name, since, lost.at + STOP_S_MAX)
    verdict = judge(fleet.runs(), load.sent, zombies=[window])
    faults = [f"a commit went back: {text}" for text in went_back]
    faults += faults_of(zombie, still, woke_at, lost, verdict)
    return zombie, Aftermath(still, woke_at, lost, verdict, faults)


def faults_of(
    zombie: Member, still: Standstill, woke_at: float, lost: Event, verdict: Verdict
) -> list[str]:
    """What a member does wrong that has lost its partitions without having been asked."""
    faults = []
    if not still.held <= lost.partitions:
        faults.append(f"it lost {sorted(lost.partitions)} of {sorted(still.held)}")
    if lost.at - woke_at > LEARN_S_MAX:
        faults.append(f"it took {lost.at - woke_at:.1f} s to learn of the loss")
    back_at = {
        p: min(
            (e.at for e in zombie.history.told("assigned", lost.at) if p in e.partitions),
            default=inf,
        )
        for p in lost.partitions
    }
    begun = [
        run
        for run in zombie.history.runs
        if run.partition in back_at and lost.at < run.began < back_at[run.partition]
    ]
    if begun:
        faults.append(f"{BEGUN}: {begun}")
    stops_at = lost.at + STOP_S_MAX
    of_lost = [run for run in zombie.history.runs if run.began <= lost.at]
    on = [run for run in of_lost if run.ended is None or run.ended > stops_at]
    if on:
        faults.append(f"{GONE_ON}: {on}")
    late = late_commits(zombie, still.since, lost.partitions)
    if late:
        faults.append(f"committed of what it had lost: {late}")
    # Until it knows, it goes on with what it had taken in.
    unknowing = [run for run in of_lost if run.began >= woke_at]
    may_repeat = still.may_repeat + Counter((run.key, run.seq) for run in unknowing)
    too_many = Counter((run.key, run.seq) for run in verdict.repeats) - may_repeat
    if too_many:
        faults.append(f"ran again, and the group knew that they were finished: {too_many}")
    return faults


def late_commits(zombie: Member, since: float, partitions: frozenset[int]) -> list[object]:
    """Commits that the broker took after the standstill, of partitions not assigned again by then."""
    held = frozenset(range(PARTITIONS)) - partitions
    sent_at = 0.0
    found: list[object] = []
    for event in zombie.history.events:
        if event.what == "assigned" and event.at > since:
            held |= event.partitions
        elif event.what == "commit":
            sent_at = event.at
        # One that was under way by then came in time.
        elif event.what == "committed" and sent_at > since and event.partitions - held:
            found.append(event)
    return found


def check(aftermath: Aftermath, report: Callable[[str, object], None]) -> None:
    still, woke_at, lost, verdict, faults = aftermath
    report("from going on until it had lost its partitions, s", round(lost.at - woke_at, 3))
    report("may run again", len(still.may_repeat))
    report("handled, run again", (verdict.handled, len(verdict.repeats)))
    assert not verdict.lost, verdict
    assert not verdict.disorder, verdict
    assert not verdict.overlaps, verdict
    assert not faults, faults


async def test_a_stopped_member_loses_what_others_have_and_harms_nothing(
    scene: Scene, report: Callable[[str, object], None]
) -> None:
    _, aftermath = await stand_still(scene, freeze)
    check(aftermath, report)


async def test_a_blocked_member_is_as_good_as_dead_and_says_who_blocked_it(
    scene: Scene, report: Callable[[str, object], None]
) -> None:
    zombie, aftermath = await stand_still(scene, block)
    check(aftermath, report)
    (blocked,) = [run for run in zombie.history.runs if run.key in BLOCKING]
    (line,) = zombie.log_lines("prosody.watch", "blocked the event loop for")
    for part in (
        f"handler Handler.on_message blocked the event loop for {BLOCK_S:.1f} s",
        f"partition {blocked.partition}",
        f"offset {blocked.offset}",
        blocked.key,
        f"session_timeout ({SESSION_S:.3g} s)",
    ):
        assert part in line, line
    for partition in aftermath.lost.partitions:
        assert zombie.log_lines("prosody.assignment", "lost topic", f"partition {partition} ")


async def test_it_notices_that_what_is_lost_goes_on(scene: Scene) -> None:
    _, aftermath = await stand_still(scene, freeze, mutants.LOST_GOES_ON)
    assert any(fault.startswith((BEGUN, GONE_ON)) for fault in aftermath.faults), aftermath
