"""What an episode left behind: the files of its members, the group's offsets, the dead letters."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from tests.durable.member import FIRED, SET
from tests.processes.histories import goes_back, judge

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tests.processes.histories import Record, Zombie
    from tests.processes.history import Run
    from tests.soak.member import SoakFleet
    from tools.look import Offsets

_NEVER_LOGGED = ("never retrieved", "was destroyed", "Exception in callback", "internal fault")


class Report(NamedTuple):
    """Faults, and in words what was done."""

    faults: list[str]
    text: str


def report(
    fleet: SoakFleet,
    sent: Mapping[str, int],
    offsets: Mapping[int, Offsets],
    dead: Sequence[Record],
    zombies: Sequence[Zombie],
) -> Report:
    """
    :param sent: by key, how many messages were sent.
    :param dead: the dead letters of the episode, in the order of the failure topic.
    """
    runs = ended_by_dead_letters(fleet.runs(), set(dead))
    verdict = judge(runs, sent, died=fleet.died(), zombies=zombies)
    fired = Counter((timer.key, timer.second) for timer in fleet.timers(FIRED))
    # That all of them have fired was waited for.
    faults = []
    if verdict.lost or verdict.disorder or verdict.overlaps:
        faults.append(str(verdict))
    if early := [timer for timer in fleet.timers(FIRED) if timer.wall < timer.second]:
        faults.append(f"fired early: {early[:5]}")
    if back := goes_back(fleet.events()):
        faults.append(f"commits that went back: {back[:5]}")
    if open_ := {p: found for p, found in offsets.items() if found.committed != found.end}:
        faults.append(f"not committed to the end: {open_}")
    for member in fleet.members:
        for text in _NEVER_LOGGED:
            faults += [f"{member.name} logged: {line}" for line in member.log_lines(text)[:3]]
    text = (
        f"{verdict.handled} handled, {len(verdict.repeats)} runs repeated; "
        f"{len(fired)} timers, {sum(count > 1 for count in fired.values())} fired twice; "
        f"{len(set(dead))} dead, {len(dead)} dead letters; "
        f"{sum(run.cancelled for run in runs)} runs failed, {len(zombies)} members frozen"
    )
    return Report(faults, text)


def ended_by_dead_letters(runs: Collection[Run], dead: Collection[Record]) -> list[Run]:
    """``runs``, of which the last one of each record among ``dead`` counts as finished: the key went on."""
    last = {(run.key, run.seq): run for run in sorted(runs, key=lambda run: run.began)}
    ends = {run for place, run in last.items() if place in dead and run.ended is not None}
    return [run._replace(cancelled=False) if run in ends else run for run in runs]


def unfired_timers(fleet: SoakFleet) -> set[tuple[str, int]]:
    """Timers whose setting was acknowledged, and that have not fired yet."""
    fired = {(timer.key, timer.second) for timer in fleet.timers(FIRED)}
    return {(timer.key, timer.second) for timer in fleet.timers(SET)} - fired
