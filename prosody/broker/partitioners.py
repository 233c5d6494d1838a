"""Where a key lives: the partitioners of librdkafka and of the Java client.

Both brokers use these, so a key is in the same partition of the embedded broker as on a real one, and
where producers in other languages put it.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from prosody._core import key_partitions
from prosody.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PARTITIONERS = ("crc32", "murmur2")
"""The names ``partition_for`` knows."""

_MASK = 0xFFFFFFFF
_MURMUR_SEED = 0x9747B28C
_MURMUR_M = 0x5BD1E995


def partition_for(
    partitioner: str, key: bytes | None, count: int, random: Callable[[], float]
) -> int:
    """The partition, 0 to ``count - 1``, of a record with ``key``.

    ``crc32`` is librdkafka's ``consistent``, ``murmur2`` the Java client's. Both count all partitions
    of the topic, available or not, so that a key stays where it is while a broker is down. The empty
    key is a key like any other and stays in one partition (librdkafka's ``consistent_random`` would
    scatter it, and its order would be lost). A record without a key goes anywhere: ``random`` gives
    numbers in [0, 1).

    :raises ConfigurationError: when there is no such partitioner.
    """
    if key is None:
        return int(random() * count)
    if partitioner == "crc32":
        return zlib.crc32(key) % count
    if partitioner == "murmur2":
        # The Java client drops the sign bit; the absolute value would differ for half of all keys.
        return (murmur2(key) & 0x7FFFFFFF) % count
    raise ConfigurationError(
        [f"partitioner: {partitioner!r} is not known; use one of {', '.join(PARTITIONERS)}"]
    )


_REMEMBERED = 16_384
"""Keys whose partition ``Partitions`` remembers."""
_REMEMBERED_BYTES = 256
"""Longer keys are worked out each time."""


class Partitions:
    """The partitions of many keys of one topic; remembers where they live."""

    def __init__(self, partitioner: str, random: Callable[[], float]) -> None:
        self._partitioner = partitioner
        self._random = random
        self._count = 0
        self._known: dict[bytes, int] = {}

    def of(self, keys: Sequence[bytes], count: int) -> list[int]:
        """Where each of ``keys`` lives in a topic of ``count`` partitions."""
        known = self._known
        if count != self._count or len(known) > _REMEMBERED:
            # What comes often is back at once.
            known.clear()
            self._count = count
        return key_partitions(keys, count, self._partitioner, known, self._find)

    def _find(self, key: bytes) -> int:
        partition = partition_for(self._partitioner, key, self._count, self._random)
        if len(key) <= _REMEMBERED_BYTES:
            self._known[key] = partition
        return partition


def murmur2(data: bytes) -> int:
    """The 32-bit Murmur2 hash with the Java client's seed, as an unsigned number."""
    length = len(data)
    h = _MURMUR_SEED ^ length
    words = length >> 2
    for word in struct.unpack_from(f"<{words}I", data):
        k = word * _MURMUR_M & _MASK
        k = (k ^ k >> 24) * _MURMUR_M & _MASK
        h = (h * _MURMUR_M & _MASK) ^ k
    rest = data[words << 2 :]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * _MURMUR_M & _MASK
    h = (h ^ h >> 13) * _MURMUR_M & _MASK
    return h ^ h >> 15
