"""A record as fetched, in pure Python: the twin of ``fetched_record_c.pyx``."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from prosody._core.protocols_events import Fetched, FetchedFrom


@final
class FetchedRecord:
    """A record of a fetch; see ``protocols_events.FetchedRecord``."""

    __slots__ = ("headers", "key", "offset", "partition", "timestamp", "topic", "value")

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

    def __init__(self, place: FetchedFrom, fetched: Fetched) -> None:
        self.topic = place.topic
        self.partition = place.partition
        self.offset = fetched.offset
        self.timestamp = fetched.timestamp
        self.key = fetched.key
        self.value = fetched.value
        self.headers = tuple(fetched.headers)

    def __repr__(self) -> str:
        return f"FetchedRecord({self.topic!r}, {self.partition}, {self.offset}, key={self.key!r})"
