"""Hashes of keys, messages and partitions, as they are stored; changing one loses what was stored."""

from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING

from xxhash import xxh3_64_intdigest, xxh3_128_digest

if TYPE_CHECKING:
    from prosody.stores.protocol import Segment

_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")

# Version 8 and the variant of RFC 9562, in the bytes that stand for them once the little-endian digest
# is read as the big-endian number of a UUID.
_CLEAR = ~((0xF0 << 72) | (0xC0 << 56))
_SET = (0x80 << 72) | (0x80 << 56)


def key_hash(key: str) -> int:
    """64-bit XXH3 of a key, unsigned."""
    return xxh3_64_intdigest(key.encode())


def _part(text: str) -> bytes:
    raw = text.encode()
    return _U32.pack(len(raw)) + raw


class MessageIdentities:
    """The identities of the messages of one partition: what deduplication knows them by.

    XXH3-128 over version, group, topic, partition, key and the message's own id, each text with its
    length in front, so that no two messages share the bytes. The same as in the other Prosody libraries.
    """

    __slots__ = ("_prefix",)

    def __init__(self, version: str, group_id: str, topic: str, partition: int) -> None:
        self._prefix = _part(version) + _part(group_id) + _part(topic) + _I32.pack(partition)

    def of(self, key: str, event_id: str) -> bytes:
        """The identity of the message with this key and this ``id``: the bytes of a UUID.

        Not the UUID itself: making one takes longer than all the rest.
        """
        raw_key = key.encode()
        raw_id = event_id.encode()
        return _version_8(
            self._prefix
            + len(raw_key).to_bytes(4, "little")
            + raw_key
            + b"\x01"
            + len(raw_id).to_bytes(4, "little")
            + raw_id
        )


def message_identity(
    version: str, group_id: str, topic: str, partition: int, key: str, event_id: str
) -> bytes:
    """One identity; for many of a partition make :class:`MessageIdentities`."""
    return MessageIdentities(version, group_id, topic, partition).of(key, event_id)


def segment_id(segment: Segment) -> uuid.UUID:
    """What stands for a segment in stored data."""
    text = _part(segment.group_id) + _part(segment.topic) + _I32.pack(segment.partition)
    return uuid.UUID(bytes=_version_8(text))


def _version_8(text: bytes) -> bytes:
    """The XXH3-128 of ``text`` as the bytes of a UUID of version 8."""
    number = int.from_bytes(xxh3_128_digest(text), "little")
    return ((number & _CLEAR) | _SET).to_bytes(16, "big")
