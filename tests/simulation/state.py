"""What the oracle keeps in mind: records, and assignments as members live through them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prosody._core.offset_set import decode_finished

if TYPE_CHECKING:
    from prosody.broker.protocol import TopicPartition


@dataclass(eq=False)
class Held:
    """One assignment of a partition to a member, from its beginning to when nothing of it runs."""

    member: str
    tp: TopicPartition
    began_s: float
    covered: Covered
    """What the group had committed when it began."""
    void_s: float | None = None
    """Since when the broker has given it to others, without asking: crash, expulsion, loss."""
    told_s: float | None = None
    """Since when the member knows that it must start nothing more."""
    closed: bool = False
    """It was given up in order; what still runs was left behind."""
    closed_s: float | None = None
    epoch: int | None = None
    """The member's own number for it."""
    lost_s: float | None = None
    """When the member was told that it is void; None again if it stood still before it could obey."""
    trouble_s: float = -1.0
    """When a commit of the member was last refused or failed."""
    live: dict[int, object] = field(default_factory=dict)
    """What runs in it: records by offset."""
    stubborn: set[int] = field(default_factory=set)
    """Offsets of those that take no notice of a cancellation."""
    ended: set[int] = field(default_factory=set)
    last_begun: dict[str, int] = field(default_factory=dict)
    """The highest offset begun of each key."""

    def __str__(self) -> str:
        return f"{self.member}'s {self.tp.topic}:{self.tp.partition} of {self.began_s:.4f}"


@dataclass(eq=False)
class Record:
    """A produced record, and how it has ended so far."""

    tp: TopicPartition
    offset: int
    key: str
    seq: int
    kind: str
    done: bool
    """Whether it may be committed."""
    finished_s: float = -1.0
    finished_by: Held | None = None
    forgotten: bool = False
    """The note that it is finished is void: retention has passed the offset of that commit."""
    last_ended_by: Held | None = None
    """Who ran it last, to whatever end."""
    live: list[Held] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.tp.topic}:{self.tp.partition}@{self.offset} ({self.key}#{self.seq})"


@dataclass(frozen=True)
class Covered:
    """What a commit says is finished."""

    offset: int = 0
    ahead: frozenset[int] = frozenset()

    @classmethod
    def of(cls, offset: int, note: str) -> Covered:
        """:raises ValueError: the note is not one of ours, or not for this offset."""
        runs = decode_finished(note, offset)
        return cls(offset, frozenset(n for start, end in runs for n in range(start, end)))

    def __contains__(self, offset: int) -> bool:
        return offset < self.offset or offset in self.ahead


@dataclass(eq=False)
class Log:
    """A partition, as the oracle knows it."""

    tp: TopicPartition
    records: list[Record] = field(default_factory=list)
    by_key: dict[str, list[Record]] = field(default_factory=dict)
    key_done: dict[str, int] = field(default_factory=dict)
    """How many records of a key, from the first one on, are done."""
    done: int = 0
    """How many records, from the first one on, are done."""
    start: int = 0
    covered: Covered = Covered()

    def add(self, record: Record) -> None:
        assert record.offset == len(self.records), "offsets count up from 0"
        self.records.append(record)
        self.by_key.setdefault(record.key, []).append(record)

    def unfinished_from(self) -> int:
        """The lowest offset that is not done, or the log's end."""
        while self.done < len(self.records) and self.records[self.done].done:
            self.done += 1
        return self.done

    def unfinished_before(self, record: Record) -> Record | None:
        """The first record of the same key that is not done, if it lies before ``record``."""
        records = self.by_key[record.key]
        at = self.key_done.get(record.key, 0)
        while at < len(records) and records[at].done:
            at += 1
        self.key_done[record.key] = at
        first = records[at] if at < len(records) else record
        return first if first.offset < record.offset else None
