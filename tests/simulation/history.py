"""What happened, in order: all that the oracle ever sees."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from prosody.broker.protocol import TopicPartition


class Event(NamedTuple):
    """One line of a history. Fields that mean nothing for its kind keep their defaults."""

    at_s: float
    what: str
    member: str = ""
    tp: TopicPartition | None = None
    offset: int = -1
    key: str = ""
    seq: int = -1
    """The number of a record among those of its key and partition."""
    epoch: int = -1
    """Of a start or end: the member's number for the assignment."""
    number: int = -1
    """Of a start: records admitted and unfinished in its partition. Of a revoke: which call it is."""
    held: bool = True
    """Of a start or commit: whether the broker says that the partition is the member's."""
    note: str = ""
    due: int | None = None
    """Of a timer: when it is due, in seconds since the beginning; below 0 for the past."""

    def __str__(self) -> str:
        parts = [f"{self.at_s:10.4f}", f"{self.member:<4}", f"{self.what:<9}"]
        if self.tp is not None:
            parts.append(f"{self.tp.topic}:{self.tp.partition}")
        if self.offset >= 0:
            parts.append(f"@{self.offset}")
        if self.seq >= 0:
            parts.append(f"{self.key}#{self.seq}")
        if self.due is not None:
            parts.append(f"{self.key} due {self.due}")
        if self.epoch >= 0:
            parts.append(f"epoch {self.epoch}")
        if self.number >= 0:
            parts.append(f"[{self.number}]")
        if not self.held:
            parts.append("NOT HELD")
        if self.note:
            parts.append(self.note)
        return " ".join(parts)


class History(list[Event]):
    """The events of one run."""

    def text(self, last: int | None = None) -> str:
        """One line for each event, or for the ``last`` ones."""
        return "\n".join(map(str, self if last is None else self[-last:]))

    def digest(self) -> str:
        """Equal for equal histories."""
        return hashlib.sha256(self.text().encode()).hexdigest()
