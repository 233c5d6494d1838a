"""What was polled of a partition and is not admitted yet; admission: track, decode, filter, queue."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from prosody._core import Admission, maker
from prosody.consume.decode import (
    UndecodableError,
    decode_excise,
    decode_json,
    decode_key,
    decode_message,
    make_message,
)
from prosody.model.fields import fields_of
from prosody.model.run import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prosody.broker.protocol import Record
    from prosody.consume.partition import Partition
    from prosody.consume.shared import Shared
    from prosody.model.message import Message
    from prosody.model.run import Holder

_log = logging.getLogger("prosody.partition")


class _NoHolder:
    number = 0


def run_of(partition: Holder, record: Record, key: str, event: Message, _: tuple[int, str]) -> Run:
    """The run of a message; its place, given last, is the number of the partition and the key."""
    return Run(partition, record, key, event)


RUN = (
    Run(_NoHolder(), None, "", None),  # type: ignore[arg-type]  # no copy keeps it
    ("partition", "record", "key", "event", "place"),
    run_of,
)
"""What a ``maker`` of runs is told."""

make_run = maker(*RUN)
"""``run_of``, for what every message needs once."""


class Inbox:
    """Records of one partition, as bytes, in offset order; at most one poll's worth."""

    def __init__(self, partition: Partition, shared: Shared) -> None:
        self._partition = partition
        self._progress = partition.progress
        self._tracker = partition.tracker
        self._shared = shared
        self._counts = shared.counts.topics[partition.topic_partition.topic]
        filters = shared.filters
        self._plain = Admission(
            partition,
            track=self._tracker.admit,
            done=self._tracker.complete,
            push=partition.queue.push,
            ready=partition.ready,
            decode=decode_json,
            message=make_message,
            run=make_run,
            mark=filters.own_mark,
            allows=filters.allows if filters.chooses else None,
            identify=shared.admitted,
        )
        self._records: Sequence[Record] = ()
        self.empty = True
        """Everything received is admitted."""
        self._next = 0
        """Index of the first record that is not admitted."""
        self._admissible = 0
        """How many more may be admitted before the length of the metadata must be looked at."""

    @property
    def left(self) -> Sequence[Record]:
        """What is not admitted yet."""
        return self._records[self._next :]

    def blocked(self) -> str | None:
        """Why no record would be admitted now, for people; None when one would be."""
        outstanding, most = self._tracker.outstanding, self._shared.max_uncommitted
        if outstanding >= most:
            return f"{outstanding} of its messages are unfinished, max_uncommitted is {most}"
        metadata_max = self._shared.metadata_max
        if self._admissible <= 0 and self._progress.admissible(metadata_max) <= 0:
            return "so much is finished ahead of its oldest message that a commit can note no more"
        return None

    def put(self, records: Sequence[Record]) -> None:
        """Take polled records behind those that are here."""
        left = self._records[self._next :]
        self._records = [*left, *records] if left else records
        self._next = 0
        self.empty = not self._records

    def clear(self) -> None:
        """Drop what is not admitted."""
        self._records = ()
        self._next = 0
        self.empty = True

    def admit(self) -> None:
        """Move records to the key queues while there is room.

        There is, while fewer than ``max_uncommitted`` of them are unfinished, and while what may have
        finished ahead fits the metadata of a commit. Both change by the end of a run, which looks.
        """
        shared = self._shared
        room = shared.max_uncommitted - self._tracker.outstanding
        if room <= 0:
            return
        end = len(self._records)
        now = shared.runtime.monotonic()
        while self._next < end and room > 0:
            if self._admissible <= 0:
                self._admissible = self._progress.admissible(shared.metadata_max)
                if self._admissible <= 0:
                    return
            begun, before = self._next, room
            room = self._admit_some(min(end, begun + self._admissible), room, now)
            taken, queued = self._next - begun, before - room
            self._admissible -= taken
            self._counts.consumed += queued
            self._counts.skipped += taken - queued
        if self._next >= end:
            self.clear()
            shared.want_records()

    def _admit_some(self, stop: int, room: int, now: float) -> int:
        """Admit up to the record at index ``stop``, while there is room; what is left of that."""
        records, progress = self._records, self._progress
        admit_plain = self._plain.admit
        at = self._next
        while at < stop and room > 0:
            if not progress.recalls:
                before = progress.last_received
                at, room = admit_plain(records, at, stop, room, before, now)
                if at == stop or room == 0:
                    break
            room -= self._admit_one(records[at], now)
            at += 1
        self._next = at
        return room

    def _admit_one(self, record: Record, now: float) -> bool:
        """Admit one record of any kind; whether it took a place."""
        progress, filters = self._progress, self._shared.filters
        offset = record.offset
        if offset <= progress.last_received:
            return False  # delivered a second time, after a seek or a reset of the connection
        self._tracker.admit(offset, now)
        if progress.recalls and progress.recall(offset):
            return False
        wanted = not filters.is_loop(record)
        if wanted:
            try:
                key = decode_key(record)
                if record.value is None:
                    return self._admit_excise(record, key, now)
                message = decode_message(record, key, self._shared.runtime)
            except UndecodableError as error:
                return self._admit_undecodable(record, error, now)
            wanted = filters.allows(message.payload)
        if not wanted:
            self._tracker.complete(offset)
            return False
        run = Run(self._partition, record, key, message)
        if self._shared.admitted is not None:
            self._shared.admitted(run)
        self._partition.push(run, now)
        return True

    def _admit_excise(self, record: Record, key: str, now: float) -> bool:
        """Queue a record without a value, or be done with it; whether it took a place."""
        if self._shared.stack.takes_excise:
            event = decode_excise(record, key, self._shared.runtime)
            self._partition.push(Run(self._partition, record, key, event), now)
            return True
        about = fields_of(self._partition.topic_partition, record.offset, key)
        more = self._shared.skipped.allows(logging.INFO, about)
        if more is not None:
            _log.info(
                "record without a value skipped, the handler has no on_excise: %s offset %d%s",
                self._partition.name,
                record.offset,
                more,
                extra=about,
            )
        self._tracker.complete(record.offset)
        return False

    def _admit_undecodable(self, record: Record, error: UndecodableError, now: float) -> bool:
        """Queue a record for the dead letters, or be done with it; whether it took a place."""
        self._counts.undecodable += 1
        about = fields_of(self._partition.topic_partition, record.offset)
        more = self._shared.undecodable.allows(logging.ERROR, about)
        if more is not None:
            _log.error(
                "record cannot be decoded: %s offset %d: %s%s",
                self._partition.name,
                record.offset,
                error,
                more,
                extra=about,
            )
        if self._shared.stack.takes_undecodable:
            # The raw key keeps its place among the other records of that key.
            key = (record.key or b"").decode("utf-8", "backslashreplace")
            self._partition.push(Run(self._partition, record, key, None, error), now)
            return True
        self._tracker.complete(record.offset)
        return False
