"""The times of a key's timers, in rows of a limited size.

The usual key has one timer, set again and again. Its row is written over, so nothing removed piles up
under the key; a row for each timer would leave a mark for each that was removed, to be read over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CHUNK: Final = 64
"""Times in a row at most: as many are written again when one is added."""


class KeyTimes:
    """The times of one key and kind, by the row (chunk) that holds them. Changed when a write is done."""

    __slots__ = ("_chunks", "_where")

    def __init__(self, rows: Iterable[tuple[int, Sequence[int] | None]] = ()) -> None:
        self._chunks: dict[int, list[int]] = {}
        self._where: dict[int, int] = {}
        for chunk, times in rows:
            self.put(chunk, times or ())

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, time: int) -> bool:
        return time in self._where

    def all(self) -> list[int]:
        """All times, ascending."""
        return sorted(self._where)

    def only(self, time: int) -> list[tuple[int, list[int]]]:
        """What each row holds when one time, which is there, is to be the only one."""
        return [(chunk, [time] if self._where[time] == chunk else []) for chunk in self._chunks]

    def with_added(self, time: int) -> tuple[int, list[int]]:
        """The row that holds a new time, and all it then holds."""
        for chunk, times in self._chunks.items():
            if len(times) < CHUNK:
                return chunk, sorted([*times, time])
        return max(self._chunks, default=-1) + 1, [time]

    def without(self, time: int) -> tuple[int, list[int]]:
        """The row that held a time, and what it holds without it."""
        chunk = self._where[time]
        return chunk, [other for other in self._chunks[chunk] if other != time]

    def put(self, chunk: int, times: Iterable[int]) -> None:
        """Note what a row holds now."""
        for time in self._chunks.get(chunk, ()):
            if self._where.get(time) == chunk:
                del self._where[time]
        kept = list(times)
        self._chunks[chunk] = kept
        for time in kept:
            self._where[time] = chunk
