"""Who holds which partition and in which state, as far as a history tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.consume.assignment import COMMIT_TIMEOUT_S
from tests.simulation.state import Covered, Held, Log, Record

if TYPE_CHECKING:
    from prosody.broker.protocol import TopicPartition
    from tests.simulation.history import Event
    from tests.simulation.plan import Plan

CLOCK_S = 1e-6
"""Sums of floats are not exact."""
COMMIT_S = 1.0
"""How long the last commit of a revoke or an unsubscribe may take when nothing is in its way."""


class Assignments:
    """The first half of the oracle: it follows assignments through their lives.

    held -> told (must start nothing more) -> closed (given up in order); or void at any time: crashed,
    thrown out, lost.
    """

    settle_s = 0.0
    """How long what was given up may wait for store operations that are under way."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.now_s = 0.0
        self.faults: list[str] = []
        self.logs: dict[TopicPartition, Log] = {}
        self.held: dict[tuple[str, TopicPartition], Held] = {}
        """The latest assignment of each partition to each member."""
        self._revokes: dict[tuple[str, TopicPartition | None, int], tuple[Held, float]] = {}
        self._leaves_s: dict[str, float] = {}
        self._frozen_s: dict[str, float] = {}
        self._thawed_s: dict[str, float] = {}
        self._hindered_s: dict[str, float] = {}
        """When a commit of a member last failed, its reply included."""
        self._cleared_s = -1.0
        """When something ended that kept everybody from committing."""
        self._no_commits: set[str] = set()
        """Why nobody can commit: an outage, or the group is between two assignments."""

    def see(self, event: Event) -> None:
        """Take in one event."""
        self.now_s = event.at_s
        judge = getattr(self, f"see_{event.what.replace(' ', '_')}", None)
        if judge is None:
            return
        try:
            judge(event)
        except Exception as error:
            # The history is impossible. It must not end the code that is being watched, but show.
            self.fault(f"impossible: {event}: {type(error).__name__}: {error}")

    def fault(self, text: str) -> None:
        """Something is wrong."""
        self.faults.append(f"{self.now_s:.4f} {text}")

    def log(self, tp: TopicPartition | None) -> Log:
        """What is known of a partition."""
        assert tp is not None
        if (log := self.logs.get(tp)) is None:
            log = self.logs[tp] = Log(tp)
        return log

    def of(self, member: str) -> list[Held]:
        """The latest assignments of a member."""
        return [held for (name, _), held in self.held.items() if name == member]

    def _latest(self, event: Event) -> Held:
        assert event.tp is not None
        return self.held[event.member, event.tp]

    # -- records ------------------------------------------------------------------------------

    def see_produced(self, event: Event) -> None:
        assert event.tp is not None
        handled = event.note == "message"
        dead_letter = event.note == "undecodable" and self.plan.mode == "low-latency"
        done = not handled and not dead_letter
        record = Record(event.tp, event.offset, event.key, event.seq, event.note, done)
        self.log(event.tp).add(record)

    def see_retention(self, event: Event) -> None:
        log = self.log(event.tp)
        log.start = max(log.start, event.offset)

    # -- what the broker tells the member -----------------------------------------------------

    def see_assigned(self, event: Event) -> None:
        assert event.tp is not None
        before = self.held.get((event.member, event.tp))
        if before is not None and not before.closed and before.void_s is None:
            self.fault(f"{before} was assigned again without being taken away")
        log = self.log(event.tp)
        if log.start > log.covered.offset:
            # Reading begins elsewhere than at the committed offset, so the note is void.
            for offset in log.covered.ahead:
                log.records[offset].forgotten = True
            log.covered = Covered(log.covered.offset)
        if event.offset != max(log.start, log.covered.offset):
            self.fault(f"{event.tp.topic}:{event.tp.partition} begins at {event.offset}")
        self.held[event.member, event.tp] = Held(event.member, event.tp, self.now_s, log.covered)

    def see_revoke(self, event: Event) -> None:
        held = self._latest(event)
        self._revokes[event.member, event.tp, event.number] = held, self.now_s
        self._tell(held)

    def see_revoked(self, event: Event) -> None:
        # A revoke may outlive its assignment: the member was thrown out, and has the next one by now.
        held, since_s = self._revokes.pop((event.member, event.tp, event.number))
        if held.void_s is None:
            self._check_took(f"the revoke of {held}", event.member, since_s)
        self._close(held)

    def see_lost(self, event: Event) -> None:
        held = self._latest(event)
        self._tell(held)
        self._void(held)
        held.lost_s = self.now_s

    # -- what becomes of the member -----------------------------------------------------------

    def see_leave(self, event: Event) -> None:
        self._leaves_s[event.member] = self.now_s
        for held in self.of(event.member):
            self._tell(held)

    def see_stopping(self, event: Event) -> None:
        for held in self.of(event.member):
            self._tell(held)
            self._close(held)

    def see_left(self, event: Event) -> None:
        since_s = self._leaves_s.pop(event.member)
        self._check_took(f"{event.member}'s unsubscribe", event.member, since_s)
        limit_s = self.plan.shutdown_timeout_s + COMMIT_TIMEOUT_S + COMMIT_S + self.settle_s
        if self.now_s - since_s > limit_s:
            self.fault(f"L4 {event.member}'s unsubscribe took {self.now_s - since_s:.1f} s")
        for held in self.of(event.member):
            if not held.closed and held.void_s is None:
                self.fault(f"{held} was not given up, and its member has left")

    def see_stop(self, event: Event) -> None:
        self._frozen_s[event.member] = self.now_s
        for held in self.of(event.member):
            if held.lost_s is not None and held.lost_s >= self.now_s - CLOCK_S:
                held.lost_s = None

    def see_cont(self, event: Event) -> None:
        del self._frozen_s[event.member]
        self._thawed_s[event.member] = self.now_s
        for held in self.of(event.member):
            self._trouble(held)  # it could not commit

    def see_crash(self, event: Event) -> None:
        for held in self.of(event.member):
            self._void(held)
        for log in self.logs.values():
            for record in log.records:
                for held in [h for h in record.live if h.member == event.member]:
                    record.live.remove(held)
                    held.live.clear()

    def see_expelled(self, event: Event) -> None:
        for held in self.of(event.member):
            self._void(held)

    # -- what keeps it from committing --------------------------------------------------------

    def see_outage(self, event: Event) -> None:
        self._no_commits.add("outage")

    def see_unsettled(self, event: Event) -> None:
        self._no_commits.add("unsettled")

    def see_restored(self, event: Event) -> None:
        self._no_commits.discard("outage")
        self._cleared_s = self.now_s
        for held in self.held.values():
            self._trouble(held)

    def see_settled(self, event: Event) -> None:
        self._no_commits.discard("unsettled")
        self._cleared_s = self.now_s
        for held in self.held.values():
            self._trouble(held)

    def see_refused(self, event: Event) -> None:
        self._hindered_s[event.member] = self.now_s
        for held in self.of(event.member):
            self._trouble(held)

    def see_failed(self, event: Event) -> None:
        if event.note == "commit":
            self.see_refused(event)
        elif event.note == "reply":
            self._hindered_s[event.member] = self.now_s

    def _check_took(self, what: str, member: str, since_s: float) -> None:
        """It may take ``shutdown_timeout``, and a commit; longer while commits are hindered."""
        if self._no_commits:
            return
        done_s = max(
            since_s + self.plan.shutdown_timeout_s,
            self._hindered_s.get(member, -1.0),
            self._thawed_s.get(member, -1.0),
            self._cleared_s,
        )
        if self.now_s > done_s + COMMIT_S + self.settle_s:
            self.fault(f"L4 {what} took {self.now_s - since_s:.1f} s")

    def _trouble(self, held: Held) -> None:
        if held.void_s is None and not held.closed:
            held.trouble_s = self.now_s

    def _tell(self, held: Held) -> None:
        if held.told_s is None:
            held.told_s = self.now_s

    def _void(self, held: Held) -> None:
        if held.void_s is None and not held.closed:
            if self._no_commits:
                self._trouble(held)
            held.void_s = self._frozen_s.get(held.member, self.now_s)

    def _close(self, held: Held) -> None:
        if held.closed or held.void_s is not None:
            return
        if self._no_commits:
            self._trouble(held)
        held.closed, held.closed_s = True, self.now_s
        assert held.told_s is not None
        if held.live and self.now_s - held.told_s < self.plan.shutdown_timeout_s - CLOCK_S:
            running = ", ".join(f"@{offset}" for offset in sorted(held.live)[:5])
            self.fault(f"L2 {held} was given up while {running} ran")
