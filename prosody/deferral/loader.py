"""Deferred messages are stored by their offset alone; here they are loaded again."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from cachetools import LRUCache

from prosody.broker.protocol import TopicPartition

if TYPE_CHECKING:
    from prosody.broker.protocol import BrokerReader, Record

CACHE_BYTES = 16 * 1024 * 1024
"""What the remembered records may occupy together, however many they may be."""
RECORD_BYTES_MAX = 64 * 1024
"""A larger record is loaded again each time: it would push out hundreds of small ones."""
OVERHEAD_BYTES = 512
"""What a record costs besides its contents, about: the objects it is made of, and its place here."""

_Place: TypeAlias = "tuple[TopicPartition, int]"


class Loader:
    """Loads deferred messages again, and remembers those of late.

    What it gives is the record at that offset, whichever it is by now: in a topic made anew it may be
    another one. The caller compares.

    :param cache_size: how many records are remembered at most; within ``cache_bytes`` together.
    """

    def __init__(
        self, reader: BrokerReader, cache_size: int, *, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self._reader = reader
        self._cache_size = cache_size
        self._cache: LRUCache[_Place, Record] = LRUCache(cache_bytes, getsizeof=_cost)

    def remember(self, record: Record) -> None:
        """A message is deferred: its first retry, soon, need not load it."""
        size = _size(record)
        if size > RECORD_BYTES_MAX or size + OVERHEAD_BYTES > self._cache.maxsize:
            return
        self._cache[_place(record)] = record
        while len(self._cache) > self._cache_size:
            self._cache.popitem()  # the one not used for the longest time

    async def load(self, partition: TopicPartition, offset: int) -> Record | None:
        """The record at this offset; None when it is gone for good.

        :raises BrokerError: it cannot be loaded now, or not within ``defer_seek_timeout``.
        """
        found = self._cache.get((partition, offset))
        if found is None:
            found = await self._reader.read(partition, offset)
            if found is not None:
                self.remember(found)
        return found

    def forget(self, partition: TopicPartition, offset: int) -> None:
        """This message is not deferred any more."""
        self._cache.pop((partition, offset), None)

    async def stop(self) -> None:
        """Close the reader; loads under way fail. Does nothing the second time."""
        self._cache.clear()
        await self._reader.stop()


def _place(record: Record) -> _Place:
    return TopicPartition(record.topic, record.partition), record.offset


def _size(record: Record) -> int:
    headers = sum(len(name) + len(content or b"") for name, content in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers


def _cost(record: Record) -> int:
    return OVERHEAD_BYTES + _size(record)
