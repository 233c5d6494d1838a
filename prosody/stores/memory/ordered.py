"""An ordered set that stays quick with a million members."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T", bound="Any")

CHUNK = 512
"""Members in half a chunk. One list of all would move half a million of them at every insertion."""


class Ordered(Generic[T]):
    """Distinct values in ascending order, in chunks of at most ``2 * CHUNK``."""

    __slots__ = ("_chunks", "_highest", "_size")

    def __init__(self) -> None:
        self._chunks: list[list[T]] = []
        self._highest: list[T] = []
        """The last member of each chunk."""
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[T]:
        for chunk in self._chunks:
            yield from chunk

    def add(self, value: T) -> bool:
        """Put a value in its place; False when it is there already."""
        at = bisect_left(self._highest, value)
        if at == len(self._chunks):
            if not self._chunks:
                self._chunks.append([value])
                self._highest.append(value)
                self._size = 1
                return True
            at -= 1  # beyond all: at the end of the last chunk
        chunk = self._chunks[at]
        place = bisect_left(chunk, value)
        if place < len(chunk) and chunk[place] == value:
            return False
        chunk.insert(place, value)
        self._highest[at] = chunk[-1]
        self._size += 1
        if len(chunk) > 2 * CHUNK:
            self._chunks.insert(at + 1, chunk[CHUNK:])
            del chunk[CHUNK:]
            self._highest.insert(at, chunk[-1])
        return True

    def discard(self, value: T) -> bool:
        """Take a value out; False when it is not there."""
        at = bisect_left(self._highest, value)
        if at == len(self._chunks):
            return False
        chunk = self._chunks[at]
        place = bisect_left(chunk, value)
        if chunk[place] != value:
            return False
        del chunk[place]
        self._size -= 1
        if chunk:
            self._highest[at] = chunk[-1]
        else:
            del self._chunks[at], self._highest[at]
        return True

    def beyond(self, value: T) -> Iterator[T]:
        """All members above ``value``, ascending. The set must not change meanwhile."""
        at = bisect_right(self._highest, value)
        if at == len(self._chunks):
            return
        first = self._chunks[at]
        yield from first[bisect_right(first, value) :]
        for chunk in self._chunks[at + 1 :]:
            yield from chunk

    def check_valid(self) -> None:
        """Assert what must always hold; for tests."""
        members = list(self)
        assert members == sorted(set(members))
        assert len(members) == self._size
        assert self._highest == [chunk[-1] for chunk in self._chunks]
        assert all(len(chunk) <= 2 * CHUNK for chunk in self._chunks)
