"""Bytes to messages: the one place where a record's key, value and headers are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from prosody._core import maker
from prosody.model.message import ExciseMessage, message_of, utc_from_ms

if TYPE_CHECKING:
    from prosody.broker.protocol import Headers, Record
    from prosody.model.message import Message
    from prosody.runtime import Runtime

# msgspec, because it is fast, refuses what is not JSON (NaN, lone surrogates) and keeps whole numbers
# of any size, which orjson turns into floats.
decode_json = msgspec.json.Decoder().decode

MESSAGE = (
    message_of("", 0, 0, 0, "", None),
    ("topic", "partition", "offset", "_timestamp_ms", "key", "payload"),
    message_of,
)
"""What a ``maker`` of messages is told."""

make_message = maker(*MESSAGE)
"""``message_of``, for what every record needs once."""

SOURCE_SYSTEM = "source-system"
SOURCE_KIND = "source-kind"


class UndecodableError(ValueError):
    """A record that is no message: its key or value is not text, or its value is not JSON."""


def decode_key(record: Record) -> str:
    """The key as text; ``""`` when the record has none.

    :raises UndecodableError: the key is not UTF-8.
    """
    key = record.key
    if not key:
        return ""
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise UndecodableError(f"the key is not UTF-8: {error}") from error


def decode_message(record: Record, key: str, runtime: Runtime) -> Message:
    """The message in a record that has a value.

    :raises UndecodableError: the value is empty, no JSON, no UTF-8 or nested too deeply.
    """
    value: Any = record.value
    try:
        payload = decode_json(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        reason = "it is empty" if not value else str(error)
        raise UndecodableError(f"the value is not JSON: {reason}") from error
    timestamp_ms = record.timestamp
    if timestamp_ms < 0:
        timestamp_ms = int(runtime.wall() * 1000)
    return make_message(record.topic, record.partition, record.offset, timestamp_ms, key, payload)


def decode_excise(record: Record, key: str, runtime: Runtime) -> ExciseMessage:
    """The event of a record without a value."""
    timestamp_ms = record.timestamp if record.timestamp >= 0 else int(runtime.wall() * 1000)
    return ExciseMessage(
        record.topic, record.partition, record.offset, utc_from_ms(timestamp_ms), key
    )


def decode(record: Record, *, runtime: Runtime, excise: bool) -> Message | ExciseMessage | None:
    """The event of a record that was stored for later; None when it has no value and nobody wants it.

    :param excise: whether the handler wants records without a value.
    :raises UndecodableError: it is no message.
    """
    key = decode_key(record)
    if record.value is not None:
        return decode_message(record, key, runtime)
    return decode_excise(record, key, runtime) if excise else None


def first_header(headers: Headers, name: str) -> bytes | None:
    """The value of the first header called ``name``; None when there is none, or it has no value."""
    for header, value in headers:
        if header == name:
            return value
    return None
