"""Message, ExciseMessage and Timer: the frozen values handlers see."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

# Recursive, as type checkers read it; at run time any JSON value.
JSONValue: TypeAlias = "bool | int | float | str | list[JSONValue] | dict[str, JSONValue] | None"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999, where ``datetime`` ends."""


def utc_from_ms(timestamp_ms: int) -> datetime:
    """An aware UTC datetime of milliseconds since 1970, exact (no float in between).

    What lies beyond the year 9999 becomes its last millisecond: a producer that wrote microseconds
    or nanoseconds must not make a record that nobody can handle.
    """
    return _EPOCH + timedelta(0, 0, 0, min(timestamp_ms, _MS_MAX))


def ms_from_utc(when: datetime) -> int:
    """Milliseconds since 1970 of an aware datetime, rounded down."""
    return (when - _EPOCH) // timedelta(milliseconds=1)


class MessageFields:
    """The mutable form of a message, in which it is built.

    Filling the slots of a frozen dataclass costs six times as much as filling plain ones, once for
    every message. So a message is filled here and frozen by changing its class, which is possible
    because both have the same slots; the compiled core fills them itself. The timestamp stays a number
    until somebody asks for it.
    """

    __slots__ = ("_timestamp_ms", "key", "offset", "partition", "payload", "topic")

    def __init__(
        self, topic: str, partition: int, offset: int, timestamp_ms: int, key: str, payload: Any
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self._timestamp_ms = timestamp_ms
        self.key = key
        self.payload = payload

    @property
    def timestamp(self) -> datetime:
        """When the record was created or appended: aware, UTC, to the millisecond."""
        return utc_from_ms(self._timestamp_ms)


@dataclass(frozen=True, init=False)
class Message(MessageFields):
    """A message of a Kafka topic, decoded. Immutable."""

    __slots__ = ()

    topic: str
    """The name of the topic."""
    partition: int
    """The partition number."""
    offset: int
    """The offset within the partition."""
    timestamp: datetime  # read through the property of MessageFields
    """When the record was created or appended: aware, UTC, to the millisecond."""
    key: str
    """The key; empty when the record has none."""
    payload: Any
    """The JSON value, as Python objects."""

    def __init__(
        self,
        topic: str,
        partition: int,
        offset: int,
        timestamp: datetime,
        key: str,
        payload: JSONValue,
    ) -> None:
        fill = object.__setattr__
        fill(self, "topic", topic)
        fill(self, "partition", partition)
        fill(self, "offset", offset)
        fill(self, "_timestamp_ms", ms_from_utc(timestamp))
        fill(self, "key", key)
        fill(self, "payload", payload)

    def __reduce__(self) -> tuple[type[Message], tuple[Any, ...]]:
        # The default would set the slots one by one, which a frozen class refuses.
        return Message, (
            self.topic,
            self.partition,
            self.offset,
            self.timestamp,
            self.key,
            self.payload,
        )


def message_of(
    topic: str, partition: int, offset: int, timestamp_ms: int, key: str, payload: Any
) -> Message:
    """A message of a time in milliseconds."""
    fields = MessageFields(topic, partition, offset, timestamp_ms, key, payload)
    fields.__class__ = Message
    return fields  # type: ignore[return-value]  # it is one now


@dataclass(frozen=True, slots=True)
class ExciseMessage:
    """A record without a value (a tombstone): what its key stood for is to be removed."""

    topic: str
    """The name of the topic."""
    partition: int
    """The partition number."""
    offset: int
    """The offset within the partition."""
    timestamp: datetime
    """When the record was created or appended: aware, UTC, to the millisecond."""
    key: str
    """The key; empty when the record has none."""


@dataclass(frozen=True, slots=True)
class Timer:
    """A timer that has fired."""

    key: str
    """The key it was scheduled for."""
    time: datetime
    """When it was due: aware, UTC, whole seconds."""
