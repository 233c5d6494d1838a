"""Keys as they are stored: Cassandra takes at most 65,535 bytes in a key column, Kafka's may be longer."""

from __future__ import annotations

import hashlib
from typing import Final

from prosody.stores.hashing import key_hash

LONGEST_BYTES: Final = 1024
_MARK: Final = "\0"

BUCKETS: Final = 64
"""Over so many partitions the keys with deferred work of one segment are spread."""


def stored_key(key: str) -> str:
    """What stands for a key: itself or, of a long one, its SHA-256 behind a mark.

    A key that begins with the mark is hashed too, so no two keys share what stands for them.
    """
    short = len(key) <= LONGEST_BYTES // 4 or len(key.encode()) <= LONGEST_BYTES
    if short and not key.startswith(_MARK):
        return key
    return _MARK + hashlib.sha256(key.encode()).hexdigest()


def bucket(key: str) -> int:
    """Which partition holds the key with deferred work."""
    return key_hash(key) % BUCKETS


def signed(number: int) -> int:
    """A 64-bit number as a ``bigint``."""
    return number - (1 << 64) if number >= 1 << 63 else number


def unsigned(number: int) -> int:
    """And back."""
    return number % (1 << 64)
