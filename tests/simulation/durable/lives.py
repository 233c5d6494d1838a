"""What messages and timers have in common for the oracle: who may run them, what excuses a repetition."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from tests.simulation.assignments import CLOCK_S, Assignments
from tests.simulation.durable.state import Key, Place, Running, Sent

if TYPE_CHECKING:
    from prosody.broker.protocol import TopicPartition
    from tests.simulation.durable.plan import DurablePlan
    from tests.simulation.history import Event
    from tests.simulation.state import Held

SLACK_S = 1.0
"""How much later something may come that is to come at once, or after ``commit_interval``."""
SETTLE_S = 5.0
"""How long a partition that was given up waits for its store."""
FAULTS_SHOWN = 10


TIMERS_FROM = 10**9


def until_s(held: Held, now_s: float) -> float:
    """When an assignment ended, or the present moment."""
    if held.void_s is not None:
        return held.void_s
    return now_s if held.closed_s is None else held.closed_s


def _number(what: Sent | Place) -> int:
    """By which an assignment knows what runs: an offset, or more than any offset."""
    return what.offset if isinstance(what, Sent) else TIMERS_FROM + what.due


class Lives(Assignments):
    """Follows handlers through their lives, whatever they were called for."""

    plan: DurablePlan

    def __init__(self, plan: DurablePlan) -> None:
        super().__init__(plan)
        if not plan.graceful:
            self.settle_s = SETTLE_S
        self.starts = 0
        self.duplicates = 0
        self.keys: defaultdict[tuple[TopicPartition, str], Key] = defaultdict(Key)
        self.foreign_writes = False
        """A member has written to the stores that did not hold the partition any more."""
        self._busy: defaultdict[str, int] = defaultdict(int)
        self._store_trouble_s: defaultdict[str, float] = defaultdict(lambda: -1.0)
        """When a call of a member to the stores last failed, or took long."""
        self._unrecorded_s: defaultdict[str, list[float]] = defaultdict(list)
        """When records of deduplication failed, which are tried once."""

    def verdict(self) -> list[str]:
        """What was found wrong: the first faults, and how many more."""
        more = len(self.faults) - FAULTS_SHOWN
        return self.faults[:FAULTS_SHOWN] + ([f"and {more} more"] if more > 0 else [])

    # -- reported by the world ----------------------------------------------------------------

    def see_fault(self, event: Event) -> None:
        self.fault(f"internal: {event.note}")

    def see_behind(self, event: Event) -> None:
        self.fault(f"L4 long after the last fault: {event.note}")

    def see_leak(self, event: Event) -> None:
        self.fault(f"L4 {event.member}: {event.note}")

    def see_store(self, event: Event) -> None:
        self._store_trouble_s[event.member] = self.now_s
        if event.note.startswith("dedup.record"):
            self._unrecorded_s[event.member].append(self.now_s)

    def see_crash(self, event: Event) -> None:
        super().see_crash(event)
        for key in self.keys.values():
            key.running = [r for r in key.running if r.held.member != event.member]
        for held in self.of(event.member):
            held.live.clear()

    # -- handlers -----------------------------------------------------------------------------

    def _begin(self, event: Event, what: Sent | Place) -> Held:
        """A handler begins: may it?"""
        assert event.tp is not None
        self.starts += 1
        held = self.held[event.member, event.tp]
        if held.epoch is None:
            held.epoch = event.epoch
        if held.epoch != event.epoch:
            self.fault(f"{what} begins in epoch {event.epoch}, of {held} with {held.epoch}")
        if held.told_s is not None and self.now_s > held.told_s + CLOCK_S:
            self.fault(f"L2 {what} begins, and {held} was taken away at {held.told_s:.4f}")
        if not event.held and held.void_s is None:
            self.fault(f"L2 {what} begins, and the broker gave {held} to somebody else")
        key = self.keys[event.tp, event.key]
        for other in key.running:
            apart = held.void_s is not None or other.held.void_s is not None or other.held.closed
            if other.held is held or not apart:
                self.fault(f"L2 {what} begins in {held}, and {other.what} runs in {other.held}")
        self._busy[event.member] += 1
        if self._busy[event.member] > self.plan.max_concurrency:
            self.fault(f"limit: {event.member} runs {self._busy[event.member]} handlers at once")
        if event.number > self.plan.limit_of(event.member):
            self.fault(f"limit: {held} has admitted {event.number}")
        key.running.append(Running(held, what))
        held.live[_number(what)] = what
        return held

    def _finish(self, event: Event, what: Sent | Place) -> Running | None:
        """A handler ends: None when it never began."""
        assert event.tp is not None
        key = self.keys[event.tp, event.key]
        self._busy[event.member] -= 1
        runner = (event.member, event.epoch)
        for running in key.running:
            if running.what is what and (running.held.member, running.held.epoch) == runner:
                key.running.remove(running)
                held = running.held
                held.live.pop(_number(what), None)
                obeys = held.lost_s is None or self.now_s <= held.lost_s + CLOCK_S
                if not (obeys or self.plan.zombies):  # some of their handlers obey nobody
                    self.fault(f"L2 {what} goes on in {held}, lost at {held.lost_s:.4f}")
                return running
        self.fault(f"{what} ends in {event.member}, and it never began there")
        return None

    def _again(self, what: Sent | Place, held: Held, *, counted: bool) -> None:
        """It has come to a good end before, and begins again: is that excused?

        :param counted: its end came while ``finished_by`` could still say so.
        """
        before, finished_s = what.finished_by, what.finished_s
        self.duplicates += 1
        if before is held:
            self.fault(f"L6 {what} has ended, and runs again in the same {held}")
        elif before is not None and held.void_s is None and counted:
            if self.plan.graceful:
                self.fault(f"L6 {what} runs twice, and everything was in order")
            lost_s = until_s(before, self.now_s)
            settled_s = max(finished_s, self._trouble_of(before))
            if lost_s - settled_s > self.plan.commit_interval_s + SLACK_S:
                self.fault(
                    f"L6 {what} was finished at {finished_s:.4f} in {before}, which had "
                    f"{lost_s - settled_s:.1f} s to say so, and runs again in {held}"
                )
            elif settled_s == finished_s and self._had_time(before):
                self.fault(f"L6 {what} has ended in {before}, and runs again in {held}")

    def _had_time(self, held: Held) -> bool:
        """Whether an assignment ended in order, and all that it had to do was done by then."""
        if held.void_s is not None:
            return False
        if held.closed_s is None:
            return True
        assert held.told_s is not None
        return held.closed_s < held.told_s + self.plan.shutdown_timeout_s - CLOCK_S

    def _trouble_of(self, held: Held) -> float:
        return max(held.trouble_s, self._store_trouble_s[held.member])

    @staticmethod
    def _counts(held: Held) -> bool:
        """Whether what ends in an assignment now still counts."""
        return held.void_s is None and not held.closed
