"""The buffer of events is bounded: by number, and by the length of what may be long."""

from __future__ import annotations

from typing import Any

from prosody.broker.protocol import TopicPartition
from prosody.telemetry.buffer import (
    CROWDED,
    EVENTS_MAX,
    LONG_CHARS,
    LONG_CHARS_MAX,
    Buffer,
)
from prosody.telemetry.events import DEMANDS, FIELDS, MESSAGE, MESSAGE_SUCCEEDED

TP = TopicPartition("t", 0)


def event(offset: int, key: str = "k", more: str = "") -> Any:
    return MESSAGE_SUCCEEDED, 1.0, MESSAGE, TP, offset, key, more


def offsets(values: list[Any]) -> list[int]:
    return values[4::FIELDS]


def test_the_oldest_go_when_there_are_too_many_and_are_counted() -> None:
    buffer = Buffer()
    for n in range(EVENTS_MAX + 100):
        buffer.add(event(n))
    assert len(buffer) <= EVENTS_MAX
    assert buffer.dropped == EVENTS_MAX + 100 - len(buffer)
    left = len(buffer)
    assert offsets(buffer.take(left)) == list(range(buffer.dropped, EVENTS_MAX + 100))
    assert not len(buffer)


def test_an_entry_that_is_two_events_counts_as_two_when_it_is_lost() -> None:
    buffer = Buffer()
    buffer.add(event(0))
    buffer.values.extend((DEMANDS[0], 1.0, MESSAGE, TP, 1, "k", 2.0))
    buffer.add(event(2, "k" * (LONG_CHARS + 1)))
    buffer.drop(2)
    assert (len(buffer), buffer.dropped) == (1, 3)
    buffer.values.extend((DEMANDS[0], 1.0, MESSAGE, TP, 3, "k", 2.0))
    assert offsets(buffer.take(2)) == [2, 3]
    assert not buffer._long_chars


def test_it_asks_for_a_look_when_it_is_crowded() -> None:
    buffer = Buffer()
    asked: list[int] = []
    buffer.wake = lambda: asked.append(len(buffer))
    for n in range(CROWDED + 1):
        buffer.add(event(n))
    assert asked == [CROWDED, CROWDED + 1]


def test_long_keys_and_errors_are_bounded_by_their_length() -> None:
    buffer = Buffer()
    key = "k" * (1024 * 1024)
    for n in range(40):
        buffer.add(event(n, key))
    kept = len(buffer)
    assert kept == LONG_CHARS_MAX // len(key)
    assert buffer.dropped == 40 - kept
    buffer.add(event(100, "k" * LONG_CHARS))  # not a long one
    assert len(buffer) == kept + 1
    # What is taken makes room again.
    assert offsets(buffer.take(2)) == [0, 1]
    buffer.add(event(41, "k", "m" * (2 * 1024 * 1024 - 1)))
    buffer.add(event(42, key))
    assert offsets(buffer.take(100)) == [*range(2, kept), 100, 41]
    assert not buffer._long_chars
