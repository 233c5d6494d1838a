"""Bytes to messages: what is a message, what is not, and that nothing else is ever raised."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosody.consume.decode import (
    UndecodableError,
    decode_excise,
    decode_key,
    decode_message,
    first_header,
)
from prosody.model.message import ExciseMessage, Message
from tests.consume.fakes import record
from tests.support import WALL_AT_START_S


class Still:
    """A runtime in which it is always the same moment."""

    def wall(self) -> float:
        return WALL_AT_START_S


RUNTIME: Any = Still()
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(value=json_values)
def test_any_json_value_comes_back(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    try:
        assert decode_message(record(0, value=text), "k", RUNTIME).payload == value
    except UndecodableError:
        assert b"\xed" in text  # a lone surrogate, which is not UTF-8


@given(value=st.binary(max_size=60), key=st.none() | st.binary(max_size=12))
def test_any_bytes_are_a_message_or_undecodable(value: bytes, key: bytes | None) -> None:
    try:
        text = decode_key(record(0, key))
        assert (text.encode() or None) == (key or None)
        decode_message(record(0, value=value), text, RUNTIME)
    except UndecodableError:
        return  # which is the other answer there is; anything else would be raised


@pytest.mark.parametrize(
    "value",
    [
        b"", b" ", b"{", b"NaN", b"Infinity", b"'a'", b"\xff", b'"\xff"', b'"\xed\xa0\x80"',
        b'"\\ud800"', b"\xef\xbb\xbf1", b"1" * 5000, b"1e999", b"[" * 100_000 + b"]" * 100_000,
        b"{} {}",
    ],
    ids=lambda value: repr(value[:12]),
)  # fmt: skip
def test_what_is_no_json(value: bytes) -> None:
    with pytest.raises(UndecodableError, match="the value is not JSON"):
        decode_message(record(0, value=value), "k", RUNTIME)


def test_an_empty_value_is_called_empty() -> None:
    with pytest.raises(UndecodableError, match="it is empty"):
        decode_message(record(0, value=b""), "k", RUNTIME)


def test_whole_numbers_keep_their_digits() -> None:
    number = 2**200 + 1
    assert decode_message(record(0, value=str(number).encode()), "k", RUNTIME).payload == number


def test_the_json_null_is_a_payload() -> None:
    message = decode_message(record(0, value=b"null"), "k", RUNTIME)
    assert type(message) is Message
    assert message.payload is None


@pytest.mark.parametrize("key", [None, b""])
def test_a_record_without_a_key_has_the_empty_one(key: bytes | None) -> None:
    assert decode_key(record(0, key)) == ""


def test_a_key_that_is_no_text() -> None:
    with pytest.raises(UndecodableError, match="the key is not UTF-8"):
        decode_key(record(0, b"\xff"))


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (1_700_000_000_123, datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC)),
        (-1, datetime.fromtimestamp(WALL_AT_START_S, UTC)),
        (1_700_000_000_123_456_789, datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)),
    ],
)
def test_timestamps(timestamp: int, expected: datetime) -> None:
    message = decode_message(record(0, timestamp=timestamp), "k", RUNTIME)
    assert message.timestamp == expected
    assert message.timestamp.tzinfo is UTC
    assert decode_excise(record(0, value=None, timestamp=timestamp), "k", RUNTIME) == ExciseMessage(
        "orders", 0, 0, expected, "k"
    )


def test_the_first_header_of_a_name_counts() -> None:
    headers = [("a", None), ("b", b"1"), ("b", b"2")]
    assert first_header(headers, "b") == b"1"
    assert first_header(headers, "a") is None
    assert first_header(headers, "c") is None
    assert first_header((), "a") is None
