"""Judges a history while it is written. It knows the events and the plan's options, nothing else.

L0 no record is lost, L1 a key's records begin in order, L2 nobody runs beside another for one key,
L3 a commit claims nothing unfinished and comes from the owner, L4 after the last fault everything is
done in time and nothing is left running, L5 what runs twice is excused: it had finished and was not
committed when its member crashed or was thrown out. Also the limits.

A *zombie* was thrown out and does not know it: between ``expelled`` and ``lost`` (or its end) it may go
on. A handler *left behind* takes no notice of its cancellation, and ``shutdown_timeout`` is over.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from tests.simulation.assignments import CLOCK_S, Assignments
from tests.simulation.handlers import STUBBORN
from tests.simulation.state import Covered, Held, Log, Record

if TYPE_CHECKING:
    from prosody.broker.protocol import TopicPartition
    from tests.simulation.history import Event
    from tests.simulation.plan import Plan

COMMIT_SLACK_S = 1.0
"""How much later than ``commit_interval`` a commit of what finished may come."""
FAULTS_SHOWN = 10


class Oracle(Assignments):
    """See the module."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._running: defaultdict[str, int] = defaultdict(int)
        self.starts = 0
        self.duplicates = 0

    # -- asked by the world -------------------------------------------------------------------

    def next_seq(self, tp: TopicPartition, key: str) -> int:
        """The number of the next record of a key."""
        return len(self.log(tp).by_key.get(key, ()))

    def unfinished_from(self, tp: TopicPartition) -> int:
        """The lowest offset that is not done."""
        return self.log(tp).unfinished_from()

    def unfinished(self) -> list[str]:
        """Records that are not done."""
        return [
            f"{r.kind} {r} is not done" for g in self.logs.values() for r in g.records if not r.done
        ]

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

    # -- handlers -----------------------------------------------------------------------------

    def see_start(self, event: Event) -> None:
        assert event.tp is not None
        self.starts += 1
        log = self.log(event.tp)
        record = log.records[event.offset]
        held = self.held[event.member, event.tp]
        if held.epoch is None:
            held.epoch = event.epoch
        self._check_right(event, record, held)
        self._check_order(log, record, held)
        self._check_alone(record, held, log)
        if record.done:
            self._check_again(record, held)
        self._running[event.member] += 1
        if self._running[event.member] > self.plan.max_concurrency:
            self.fault(f"limit: {event.member} runs {self._running[event.member]} handlers at once")
        if event.number > self.plan.limit_of(event.member):
            self.fault(f"limit: {held} has admitted {event.number}")
        held.live[record.offset] = record
        if event.note in STUBBORN:
            held.stubborn.add(record.offset)
        record.live.append(held)

    def _check_right(self, event: Event, record: Record, held: Held) -> None:
        """May this member begin this record?"""
        if record.kind != "message":
            self.fault(f"{record} is {record.kind}, and handled")
        if held.epoch != event.epoch:
            self.fault(f"{record} begins in epoch {event.epoch}, of {held} with {held.epoch}")
        if held.told_s is not None and self.now_s > held.told_s + CLOCK_S:
            self.fault(f"L2 {record} begins, and {held} was taken away at {held.told_s:.4f}")
        if not event.held and held.void_s is None:
            self.fault(f"L2 {record} begins, and the broker gave {held} to somebody else")

    def _check_order(self, log: Log, record: Record, held: Held) -> None:
        earlier = log.unfinished_before(record)
        if earlier is not None:
            self.fault(f"L1 {record} begins, and {earlier} is not done")
        last = held.last_begun.get(record.key, -1)
        if last > record.offset:
            self.fault(f"L1 {record} begins after @{last} in {held}")
        elif last not in {-1, record.offset} and last not in held.ended:
            self.fault(f"L1 {record} begins in {held}, and @{last} of it has not ended there")
        held.last_begun[record.key] = record.offset

    def _check_alone(self, record: Record, held: Held, log: Log) -> None:
        for other in log.by_key[record.key]:
            for runner in other.live:
                zombies = runner.void_s is not None or held.void_s is not None
                if runner is held or not (zombies or runner.closed):
                    self.fault(f"L2 {record} begins in {held}, and {other} runs in {runner}")

    def _check_again(self, record: Record, held: Held) -> None:
        """It has ended before: is that excused?"""
        before = record.finished_by
        self.duplicates += 1
        if record.offset in held.covered:
            self.fault(f"L5 {record} was committed before {held}, and runs again")
        if before is held:
            self.fault(f"L5 {record} has ended, and runs again in the same {held}")
        if before is None or before is held or held.void_s is not None or record.forgotten:
            return
        if self.plan.graceful:
            self.fault(f"L5 {record} runs twice, and everything was in order")
        troubled = before.trouble_s >= record.finished_s - CLOCK_S
        if before.void_s is None:
            if not troubled and not before.closed:
                self.fault(f"L5 {record} runs in {held}, and {before} has finished it and goes on")
            elif not troubled and record.offset in before.ended:
                self.fault(f"L5 {record} was finished and not committed in {before}")
            return
        limit_s = self.plan.commit_interval_s + COMMIT_SLACK_S
        if before.void_s - max(record.finished_s, before.trouble_s) > limit_s:
            self.fault(
                f"L5 {record} was finished at {record.finished_s:.4f} in {before}, lost at "
                f"{before.void_s:.4f}, and not committed in between"
            )

    def see_end(self, event: Event) -> None:
        assert event.tp is not None
        record = self.log(event.tp).records[event.offset]
        self._running[event.member] -= 1
        runner = (event.member, event.epoch)
        held = next((h for h in record.live if (h.member, h.epoch) == runner), None)
        if held is None:
            self.fault(f"{record} ends in {event.member}, and it never began there")
            return
        record.live.remove(held)
        record.last_ended_by = held
        self._check_obeyed(record, held)
        del held.live[record.offset]
        held.stubborn.discard(record.offset)
        verdict, mode = event.note, self.plan.mode
        done = verdict == "success" or (verdict == "permanent" and mode != "low-latency")
        if done or (verdict == "transient" and mode == "best-effort"):
            self._finish(record, held)

    def _check_obeyed(self, record: Record, held: Held) -> None:
        """Who is told that a partition is lost cancels what runs there."""
        if held.lost_s is None or record.offset in held.stubborn:
            return
        if self.now_s > held.lost_s + CLOCK_S:
            self.fault(f"L2 {record} goes on in {held}, which was lost at {held.lost_s:.4f}")

    def see_over(self, event: Event) -> None:
        for log in self.logs.values():
            for record in log.records:
                for held in record.live:
                    self._check_obeyed(record, held)

    def _finish(self, record: Record, held: Held | None) -> None:
        if held is not None and not held.closed:
            held.ended.add(record.offset)
        if not record.done or (held is not None and held.void_s is None and not held.closed):
            record.finished_by, record.finished_s = held, self.now_s
        record.done, record.forgotten = True, False

    def see_dead(self, event: Event) -> None:
        assert event.tp is not None
        record = self.log(event.tp).records[event.offset]
        self._finish(record, record.last_ended_by)

    # -- commits ------------------------------------------------------------------------------

    def see_commit(self, event: Event) -> None:
        assert event.tp is not None
        log = self.log(event.tp)
        where = f"{event.tp.topic}:{event.tp.partition}@{event.offset} by {event.member}"
        if not event.held:
            self.fault(f"L3 commit {where}, who does not hold it")
        if event.offset < log.covered.offset:
            self.fault(f"L3 commit {where} goes back from {log.covered.offset}")
        if event.offset > log.unfinished_from():
            self.fault(f"L3 commit {where} claims @{log.done}, which is not done")
        try:
            covered = Covered.of(event.offset, event.note)
        except ValueError as error:
            self.fault(f"L3 commit {where}: {error}")
            return
        for offset in sorted(covered.ahead):
            if offset >= len(log.records) or not log.records[offset].done:
                self.fault(f"L3 commit {where} notes {offset} as finished, which is not")
        forgotten = [n for n in sorted(log.covered.ahead) if n not in covered]
        if forgotten:
            self.fault(f"L5 commit {where} forgets that {forgotten} are finished")
        log.covered = covered
