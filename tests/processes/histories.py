"""What the files of all members say together: overlaps, order, losses, repeats. Pure functions."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from prosody._core.offset_set import decode_finished

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from prosody.broker.protocol import OffsetAndMetadata
    from tests.processes.history import Event, Run

Record = tuple[str, int]
"""Key and number."""


class Zombie(NamedTuple):
    """A member that was frozen, and the time in which others may run what it still runs."""

    member: str
    since: float
    until: float


class Verdict(NamedTuple):
    """What was wrong, and how much was done."""

    handled: int
    """Records handled, each counted once."""
    lost: list[Record]
    disorder: list[str]
    overlaps: list[tuple[Run, Run]]
    repeats: list[Run]
    """Runs of what had been begun before."""

    def __str__(self) -> str:
        return (
            f"{self.handled} handled; lost {self.lost[:5]} ({len(self.lost)}); "
            f"out of order {self.disorder[:5]} ({len(self.disorder)}); "
            f"overlaps {self.overlaps[:3]} ({len(self.overlaps)}); "
            f"repeats {self.repeats[:5]} ({len(self.repeats)})"
        )


def judge(
    runs: Collection[Run],
    sent: Mapping[str, int],
    *,
    died: Mapping[str, float] | None = None,
    zombies: Sequence[Zombie] = (),
) -> Verdict:
    """
    :param sent: by key, how many records were sent; they are numbered from 1.
    :param died: by member, when a killed one was surely dead: its handlers ended by then.
    """
    finished = {(run.key, run.seq) for run in runs if run.finished}
    expected = {(key, seq) for key, count in sent.items() for seq in range(1, count + 1)}
    unknown = finished - expected
    assert not unknown, f"handled, and never sent: {sorted(unknown)[:5]}"
    return Verdict(
        handled=len(finished),
        lost=sorted(expected - finished),
        disorder=disorder(runs),
        overlaps=[
            pair
            for pair in overlaps(runs, died or {})
            if not any(_excused(zombie, *pair, died or {}) for zombie in zombies)
        ],
        repeats=repeats(runs),
    )


def overlaps(runs: Iterable[Run], died: Mapping[str, float]) -> list[tuple[Run, Run]]:
    """Every two runs of a key that ran at the same time, whichever processes they ran in."""
    found = []
    for same in _by_key(runs).values():
        active: list[Run] = []
        for run in same:
            active = [other for other in active if _end(other, died) > run.began]
            found += [(other, run) for other in active]
            active.append(run)
    return found


def disorder(runs: Iterable[Run]) -> list[str]:
    """Keys of which a record began for the first time before the one ahead was handled once."""
    found = []
    for (_, key), same in _by_key(runs).items():
        began: dict[int, float] = {}
        handled: dict[int, float] = {}
        for run in same:
            began.setdefault(run.seq, run.began)
            if run.finished and run.ended is not None:
                handled[run.seq] = min(run.ended, handled.get(run.seq, run.ended))
        numbers = sorted(began)
        for before, after in pairwise(numbers):
            if handled.get(before, float("inf")) > began[after]:
                found.append(f"{key}: {after} began before {before} was handled")
    return found


def repeats(runs: Iterable[Run]) -> list[Run]:
    """Runs of records that had been begun before, by anybody."""
    seen: set[tuple[int, int]] = set()
    found = []
    for run in sorted(runs, key=lambda run: run.began):
        place = run.partition, run.offset
        if place in seen:
            found.append(run)
        seen.add(place)
    return found


def unsettled(runs: Iterable[Run], committed: Mapping[int, OffsetAndMetadata]) -> set[Record]:
    """What of a member's runs the group does not know to be finished: these may run again.

    :param committed: what the broker has of the group, looked at after the member's end.
    """
    ahead = {p: decode_finished(found.metadata, found.offset) for p, found in committed.items()}
    return {
        (run.key, run.seq)
        for run in runs
        if not run.finished
        or (
            run.offset >= committed[run.partition].offset
            and not any(start <= run.offset < end for start, end in ahead[run.partition])
        )
    }


def goes_back(events: Iterable[Event]) -> list[str]:
    """Acknowledged commits below an earlier one of the same partition, over all members."""
    highest: dict[int, int] = {}
    found = []
    for event in sorted(events, key=lambda event: event.at):
        if event.what != "committed":
            continue
        for partition, (offset, _) in event.offsets.items():
            if offset < highest.get(partition, 0):
                found.append(f"{partition}: {offset} after {highest[partition]} ({event.member})")
            highest[partition] = max(offset, highest.get(partition, 0))
    return found


def held_at(events: Sequence[Event], at: float) -> frozenset[int]:
    """The partitions that the writer of ``events`` held at a time."""
    held: frozenset[int] = frozenset()
    for event in events:
        if event.at > at:
            break
        if event.what == "assigned":
            held |= event.partitions
        elif event.what in {"revoking", "lost"}:
            held -= event.partitions
    return held


def kept(events: Sequence[Event], since: float, until: float) -> frozenset[int]:
    """Partitions that the writer of ``events`` held without a break from ``since`` to ``until``."""
    held = held_at(events, since)
    for event in events:
        if since < event.at <= until and event.what in {"revoking", "lost"}:
            held -= event.partitions
    return held


def longest_gap(starts: Iterable[float], since: float, until: float) -> float:
    """Seconds between two starts one after the other, the gap at least partly in the interval."""
    at = sorted(starts)
    gaps = (after - before for before, after in pairwise(at) if before < until and after > since)
    return max(gaps, default=float("inf"))


def _by_key(runs: Iterable[Run]) -> dict[tuple[int, str], list[Run]]:
    found: dict[tuple[int, str], list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.began):
        found[run.partition, run.key].append(run)
    return found


def _end(run: Run, died: Mapping[str, float]) -> float:
    return died.get(run.member, float("inf")) if run.ended is None else run.ended


def _excused(zombie: Zombie, one: Run, other: Run, died: Mapping[str, float]) -> bool:
    """Whether one of the two runs is the zombie's, and they overlap in its time only."""
    since = max(one.began, other.began)
    until = min(_end(one, died), _end(other, died))
    theirs = zombie.member in {one.member, other.member} and one.member != other.member
    return theirs and since >= zombie.since and until <= zombie.until
