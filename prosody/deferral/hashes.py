"""Which keys may have deferred work, in one number each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Hashes(set[int]):
    """The 64-bit hashes of keys that have a queue; each counted as often as it was added.

    Two keys may share a hash (among 1,000,000 keys with a chance of 1 in 37,000,000): it stays until both
    are gone. A key that is named twice at loading cannot be told from that, so its hash stays until the
    partition is given up; that costs a look into the store when nothing exact is remembered of the key.
    """

    __slots__ = ("_more",)

    def __init__(self) -> None:
        super().__init__()
        self._more: dict[int, int] = {}
        """How often beyond once; nearly always empty."""

    @property
    def total(self) -> int:
        """All that were added and not removed since."""
        return len(self) + sum(self._more.values())

    def load(self, page: Sequence[int]) -> None:
        """Add a page of them."""
        distinct = set(page)
        if len(distinct) == len(page) and self.isdisjoint(distinct):
            self.update(distinct)
            return
        for number in page:
            self.put(number)

    def forget(self) -> None:
        """Begin anew."""
        self.clear()
        self._more.clear()

    def put(self, number: int) -> None:
        """Count one key more."""
        if number in self:
            self._more[number] = self._more.get(number, 0) + 1
        else:
            self.add(number)

    def take(self, number: int) -> None:
        """Count one key less."""
        more = self._more.get(number, 0)
        if more > 1:
            self._more[number] = more - 1
        elif more:
            del self._more[number]
        else:
            self.discard(number)
