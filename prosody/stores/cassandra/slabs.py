"""The stretches of time in which a segment has timers.

A slab is an interval ``[start, end)`` of seconds; those of a segment never overlap. A timer lies in the
slab that covers its time. Where none does, one of ``slab_size`` is made, aligned to it and cut off where
its neighbours begin: so another ``slab_size`` only shapes new slabs, and nothing stored has to move.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Slab(NamedTuple):
    """One slab, and the second at which Cassandra forgets that it is there."""

    start: int
    end: int
    expires: int


class Slabs:
    """The slabs of one segment. 24 bytes each, because a small ``slab_size`` may make a million."""

    def __init__(self, slabs: Iterable[Slab] = ()) -> None:
        self._starts = array("q")
        self._ends = array("q")
        self._expires = array("q")
        for slab in sorted(slabs):
            self.put(slab)

    def __len__(self) -> int:
        return len(self._starts)

    def covering(self, time: int) -> Slab | None:
        """The slab in which a time lies."""
        at = bisect_right(self._starts, time) - 1
        return self._at(at) if at >= 0 and time < self._ends[at] else None

    def new_around(self, time: int, size: int) -> tuple[int, int]:
        """Start and end of the slab to make for a time that none covers."""
        at = bisect_right(self._starts, time)
        start = time - time % size
        end = start + size
        if at > 0:
            start = max(start, self._ends[at - 1])
        if at < len(self._starts):
            end = min(end, self._starts[at])
        return start, end

    def put(self, slab: Slab) -> None:
        """Note a slab, or that one is kept for longer."""
        at = bisect_left(self._starts, slab.start)
        if at < len(self._starts) and self._starts[at] == slab.start:
            self._ends[at], self._expires[at] = slab.end, slab.expires
            return
        self._starts.insert(at, slab.start)
        self._ends.insert(at, slab.end)
        self._expires.insert(at, slab.expires)

    def between(self, first: int, last: int) -> Sequence[int]:
        """The starts of the slabs that have seconds from ``first`` to ``last``, ascending."""
        low = bisect_right(self._starts, first) - 1
        if low < 0 or self._ends[low] <= first:
            low += 1
        return self._starts[low : bisect_right(self._starts, last)]

    def forget_before(self, time: int) -> int | None:
        """Drop the slabs that end at ``time`` or before; the start of those left begins at the answer.

        :returns: None when there was none to drop.
        """
        at = bisect_right(self._ends, time)
        if not at:
            return None
        bound = self._ends[at - 1]
        for column in (self._starts, self._ends, self._expires):
            del column[:at]
        return bound

    def _at(self, at: int) -> Slab:
        return Slab(self._starts[at], self._ends[at], self._expires[at])
