"""Message, ExciseMessage, Timer: frozen values, exact to the millisecond."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosody import ExciseMessage, Message, Timer
from prosody.model.message import message_of, ms_from_utc, utc_from_ms

FIELDS = ["topic", "partition", "offset", "timestamp", "key", "payload"]
LAST_MS = 253_402_300_799_999


def message(**fields: Any) -> Message:
    values: dict[str, Any] = {
        "topic": "orders", "partition": 1, "offset": 2, "timestamp": utc_from_ms(1_001),
        "key": "k", "payload": {"a": [1]}, **fields,
    }  # fmt: skip
    return Message(**values)


def polled() -> Message:
    """The same message, built as the library builds it."""
    return message_of("orders", 1, 2, 1_001, "k", {"a": [1]})


@pytest.mark.parametrize("made", [message(), polled()], ids=["made", "polled"])
def test_it_is_frozen(made: Message) -> None:
    for name in FIELDS:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, name, None)
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(made, name)
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
        made.other = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("made", [message(), polled()], ids=["made", "polled"])
def test_it_is_a_dataclass(made: Message) -> None:
    assert type(made) is Message
    assert [field.name for field in dataclasses.fields(made)] == FIELDS
    assert dataclasses.asdict(made) == {name: getattr(made, name) for name in FIELDS}
    assert repr(made).startswith("Message(topic='orders', partition=1, offset=2, timestamp=")
    match made:
        case Message(topic=topic, offset=offset):
            assert (topic, offset) == ("orders", 2)
        case _:
            raise AssertionError


def test_equality_and_hash() -> None:
    assert message() == polled()
    assert message(payload=1) == message(payload=1)
    assert hash(message(payload="x")) == hash(message(payload="x"))
    for name, other in zip(FIELDS, ["x", 9, 9, utc_from_ms(0), "x", None], strict=True):
        assert message(**{name: other}) != message()
    assert message() != tuple(getattr(message(), name) for name in FIELDS)
    with pytest.raises(TypeError, match="unhashable"):
        hash(message())  # its payload is a dict


def test_replace() -> None:
    changed = dataclasses.replace(polled(), payload=5, timestamp=utc_from_ms(7))
    assert (changed.payload, changed.timestamp, changed.key) == (5, utc_from_ms(7), "k")
    assert polled().payload == {"a": [1]}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_copies(protocol: int) -> None:
    for made in (message(), polled()):
        assert pickle.loads(pickle.dumps(made, protocol)) == made
        assert copy.copy(made) == made
        deep = copy.deepcopy(made)
        assert deep == made
        assert deep.payload is not made.payload


@given(milliseconds=st.integers(-(10**12), LAST_MS))
def test_timestamps_are_exact(milliseconds: int) -> None:
    when = utc_from_ms(milliseconds)
    assert when.tzinfo is UTC
    assert ms_from_utc(when) == milliseconds
    assert when - utc_from_ms(0) == timedelta(milliseconds=milliseconds)
    assert message_of("t", 0, 0, milliseconds, "k", None).timestamp == when


def test_a_timestamp_that_no_datetime_holds_is_the_last_there_is() -> None:
    assert utc_from_ms(LAST_MS + 1) == utc_from_ms(10**20) == utc_from_ms(LAST_MS)


def test_a_timestamp_of_another_zone_is_kept_as_utc_to_the_millisecond() -> None:
    when = datetime(2024, 5, 6, 7, 8, 9, 123_999, tzinfo=timezone(timedelta(hours=2)))
    assert message(timestamp=when).timestamp == when.replace(microsecond=123_000)
    assert message(timestamp=when).timestamp.tzinfo is UTC


@pytest.mark.parametrize(
    "value",
    [ExciseMessage("orders", 1, 2, utc_from_ms(3), "k"), Timer("k", utc_from_ms(3))],
    ids=["excise", "timer"],
)
def test_the_other_values(value: Any) -> None:
    assert pickle.loads(pickle.dumps(value)) == value == copy.deepcopy(value)
    assert hash(value) == hash(copy.copy(value))
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.key = "x"
    assert not hasattr(value, "__dict__")
