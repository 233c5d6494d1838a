"""The oracle's rules about messages: their order, deferral, deduplication, and what a commit may claim."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from tests.simulation.assignments import CLOCK_S
from tests.simulation.durable.lives import SLACK_S, Lives, until_s
from tests.simulation.durable.plan import HANG_S
from tests.simulation.durable.state import Sent
from tests.simulation.state import Covered

if TYPE_CHECKING:
    from typing import Any

    from prosody.broker.protocol import TopicPartition
    from tests.simulation.history import Event
    from tests.simulation.state import Held

HEALTHY_S = 10.0
"""A message whose key never fails is done after this time, whatever other keys do."""


class Messages(Lives):
    """See the module."""

    def __init__(self, plan: Any) -> None:
        super().__init__(plan)
        self._like: defaultdict[str, list[Sent]] = defaultdict(list)
        self._recorded: dict[str, float] = {}
        """When an identity was first in the store."""
        self._disturbed_s = 0.0
        """When partitions last moved."""
        self._sick = {failing.key for failing in self.plan.failing}

    # -- asked by the world -------------------------------------------------------------------

    def next_seq(self, tp: TopicPartition, key: str) -> int:
        """The number of the next record of a key."""
        return len(self.log(tp).by_key.get(key, ()))

    def unfinished_from(self, tp: TopicPartition) -> int:
        """The lowest offset that is not done."""
        return self.log(tp).unfinished_from()

    def unfinished(self) -> list[str]:
        """Records that are not done."""
        return [f"{r} is not done" for g in self.logs.values() for r in g.records if not r.done]

    # -- records ------------------------------------------------------------------------------

    def see_produced(self, event: Event) -> None:
        assert event.tp is not None
        kind, _, identity = event.note.partition(" ")
        done = kind != "message"
        sent = Sent(
            event.tp, event.offset, event.key, event.seq, kind, done,
            at_s=self.now_s, identity=identity,
        )  # fmt: skip
        if identity:
            sent.like = self._like[identity]
            sent.like.append(sent)
            sent.done = sent.done or any(other.handled for other in sent.like)
        self.log(event.tp).add(sent)

    def _sent(self, event: Event) -> Sent:
        record = self.log(event.tp).records[event.offset]
        assert isinstance(record, Sent)
        return record

    def see_row(self, event: Event) -> None:
        sent = self._sent(event)
        assert event.tp is not None
        held = self.held.get((event.member, event.tp))
        sent.row = sent.deferred = True
        if held is None or not self._counts(held):
            sent.foreign = self.foreign_writes = True
        elif sent.handled and sent.finished_by is held:
            self.fault(f"L6 {sent} has ended in {held}, and is deferred there")

    def see_unrow(self, event: Event) -> None:
        sent = self._sent(event)
        sent.row = False
        if not sent.done:
            self.fault(f"L0 {sent} is deferred no more, and is not done")

    def see_assigned(self, event: Event) -> None:
        super().see_assigned(event)
        self._disturbed_s = self.now_s

    def see_revoked(self, event: Event) -> None:
        super().see_revoked(event)
        self._disturbed_s = self.now_s

    # -- handlers -----------------------------------------------------------------------------

    def see_start(self, event: Event) -> None:
        sent = self._sent(event)
        held = self._begin(event, sent)
        log = self.log(event.tp)
        if sent.kind != "message":
            self.fault(f"{sent} is {sent.kind}, and handled")
        if sent.offset in held.covered and not sent.row and not sent.foreign:
            self.fault(f"L5 {sent} was committed before {held} and not deferred, and runs there")
        earlier = log.unfinished_before(sent)
        if earlier is not None:
            self.fault(f"L1 {sent} begins, and {earlier} is not done")
        last = held.last_begun.get(sent.key, -1)
        if last > sent.offset and not sent.foreign:
            self.fault(f"L1 {sent} begins after @{last} in {held}")
        held.last_begun[sent.key] = max(last, sent.offset)
        if sent.handled:
            if not sent.foreign:
                self._again(sent, held, counted=sent.counted)
        else:
            for other in sent.like:
                if other.handled:
                    self._check_twice(sent, other, held)

    def _check_twice(self, sent: Sent, other: Sent, held: Held) -> None:
        """A second copy begins, and the first one was handled: is that excused?"""
        self.duplicates += 1
        by, finished_s = other.finished_by, other.finished_s
        recorded_s = self._recorded.get(sent.identity)
        assert by is not None
        if not other.counted:
            return
        if by.member == held.member:
            self.fault(f"dedup: {sent} begins in {held}, and its like {other} was handled there")
        if recorded_s is not None:
            troubled = self._store_trouble_s[held.member] >= held.began_s - CLOCK_S
            if recorded_s < held.began_s and not troubled:
                self.fault(f"dedup: {sent} begins in {held}, and was recorded at {recorded_s:.4f}")
            return
        if until_s(by, self.now_s) - finished_s > SLACK_S and not self._failed_to_record(
            other, by.member
        ):
            self.fault(f"dedup: {sent} begins, and {other}, handled in {by}, was never recorded")

    def _failed_to_record(self, sent: Sent, member: str) -> bool:
        begin_s, end_s = sent.finished_s - CLOCK_S, sent.finished_s + HANG_S + SLACK_S
        return any(begin_s <= at_s <= end_s for at_s in self._unrecorded_s[member])

    def see_end(self, event: Event) -> None:
        sent = self._sent(event)
        running = self._finish(event, sent)
        if running is None or event.note not in {"success", "permanent"}:
            return
        held = running.held
        if self._counts(held):
            held.ended.add(sent.offset)
        if not sent.handled or self._counts(held):
            sent.finished_by, sent.finished_s = held, self.now_s
            sent.counted = self._counts(held)
        first = not sent.handled
        sent.done = sent.handled = True
        for other in sent.like:
            other.done = True  # whether it is skipped or not
        if first and self.plan.isolated and sent.key not in self._sick:
            waited_s = self.now_s - max(sent.at_s, self._disturbed_s)
            if waited_s > HEALTHY_S:
                self.fault(f"L7 {sent} of a key that never fails has waited for {waited_s:.1f} s")

    # -- records of deduplication, commits ----------------------------------------------------

    def see_recorded(self, event: Event) -> None:
        self._recorded.setdefault(event.note, self.now_s)
        if event.note in self._like and not any(s.handled for s in self._like[event.note]):
            self.fault(f"dedup: recorded, and not handled: {self._like[event.note][0]}")

    def see_commit(self, event: Event) -> None:
        assert event.tp is not None
        log = self.log(event.tp)
        where = f"{event.tp.topic}:{event.tp.partition}@{event.offset} by {event.member}"
        if not event.held:
            self.fault(f"L3 commit {where}, who does not hold it")
        if event.offset < log.covered.offset:
            self.fault(f"L3 commit {where} goes back from {log.covered.offset}")
        try:
            covered = Covered.of(event.offset, event.note)
        except ValueError as error:
            self.fault(f"L3 commit {where}: {error}")
            return
        claimed = {*range(log.covered.offset, covered.offset), *covered.ahead}
        for offset in sorted(claimed - log.covered.ahead):
            if offset >= len(log.records):
                self.fault(f"L3 commit {where} claims {offset}, which does not exist")
                continue
            sent = log.records[offset]
            assert isinstance(sent, Sent)
            if not (sent.done or sent.row):
                self.fault(f"L3 commit {where} claims {offset}, neither done nor deferred")
            self._check_recorded(sent, event.member)
        forgotten = [n for n in sorted(log.covered.ahead) if n not in covered]
        if forgotten:
            self.fault(f"L5 commit {where} forgets that {forgotten} are finished")
        log.covered = covered

    def _check_recorded(self, sent: Sent, member: str) -> None:
        """What a member handled and commits, it has recorded before, or tried to."""
        by = sent.finished_by
        if not (sent.identity and sent.handled and sent.counted) or sent.deferred:
            return
        if by is None or by.member != member or sent.identity in self._recorded:
            return
        if not self._failed_to_record(sent, member):
            self.fault(f"dedup: {sent} is committed by {member}, and was not recorded before")
