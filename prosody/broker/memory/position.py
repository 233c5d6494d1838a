"""Where a held partition is read, and what happens when its log moves under that place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.broker.protocol import Start, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prosody.broker.memory.log import MemoryRecord, PartitionLog, Watcher
    from prosody.broker.protocol import OffsetAndMetadata


class Position:
    """Where a held partition is read. The caller holds the cluster's lock."""

    __slots__ = ("_cuts_seen", "log", "offset", "ready")

    def __init__(self, log: PartitionLog, offset: int) -> None:
        self.log = log
        self.offset = offset
        self.ready = False
        """Whether it may be polled: after ``on_assigned``, until its revoke begins."""
        self._cuts_seen = len(log.cuts)

    def is_beyond(self) -> bool:
        """Whether the log ends before this place, or did at some time since the last look.

        To be called before each read. The log may have grown past this place again by then, with
        other records, so each cut counts.
        """
        cuts = self.log.cuts
        if self.offset > self.log.end or any(self.offset > cut for cut in cuts[self._cuts_seen :]):
            return True
        self._cuts_seen = len(cuts)
        return False

    def seek(self, offset: int) -> None:
        """Read from ``offset`` on, in the log as it is now."""
        self.offset = offset
        self._cuts_seen = len(self.log.cuts)

    def catch_up(self) -> int | None:
        """Go on at the log's beginning when retention passed this place; returns the place that was."""
        if self.offset >= self.log.start:
            return None
        before, self.offset = self.offset, self.log.start
        return before

    def read(self, max_records: int) -> Sequence[MemoryRecord]:
        """The next records; this place moves behind them."""
        records = self.log.read(self.offset, max_records)
        if records:
            self.offset = records[-1].offset + 1
        return records


class Positions(dict[TopicPartition, Position]):
    """What a consumer holds, and where it reads it. The caller holds the cluster's lock.

    Ordered: the partition that gave records last comes last in the next read.
    """

    def beyond(self) -> frozenset[TopicPartition]:
        """The partitions that are read beyond the ends of their logs."""
        return frozenset(tp for tp, p in self.items() if p.ready and p.is_beyond())

    def watch(
        self, asked: frozenset[TopicPartition], watcher: Watcher, watched: set[PartitionLog]
    ) -> None:
        """Have ``watcher`` woken by new records of the partitions; their logs are added to ``watched``."""
        for tp, position in self.items():
            if position.ready and tp in asked:
                position.log.watch(watcher)
                watched.add(position.log)

    def read(
        self,
        asked: frozenset[TopicPartition],
        max_records: int,
        warnings: list[tuple[TopicPartition, str]],
    ) -> dict[TopicPartition, Sequence[MemoryRecord]]:
        """The next records of some partitions, ``max_records`` together. Adds to ``warnings``."""
        taken: dict[TopicPartition, Sequence[MemoryRecord]] = {}
        for tp, position in self.items():
            if not position.ready or tp not in asked or position.is_beyond():
                continue
            if (before := position.catch_up()) is not None:
                warnings.append((tp, passed(before, position.offset)))
            if records := position.read(max_records):
                taken[tp] = records
                max_records -= len(records)
                if max_records <= 0:
                    break
        for tp in taken:
            self[tp] = self.pop(tp)
        return taken


def begin(log: PartitionLog, committed: OffsetAndMetadata | None) -> tuple[Start, str | None]:
    """Where a newly assigned partition begins, and a warning when that is not what was committed."""
    if committed is None:
        return Start(log.start, "", log.end), None
    offset, metadata = committed
    if log.start <= offset <= log.end:
        return Start(offset, metadata, log.end), None
    if offset < log.start:
        warning = passed(offset, log.start)
    else:
        warning = (
            f"the committed offset {offset} lies beyond the end {log.end}: the log was made anew or "
            f"cut off; reading begins at {log.start}"
        )
    return Start(log.start, "", log.end), warning


def passed(offset: int, start: int) -> str:
    """Says what retention took before it was read."""
    return (
        f"retention has passed offset {offset}: {start - offset} offsets ({offset} to {start - 1}) "
        f"are gone; reading goes on at {start}"
    )
