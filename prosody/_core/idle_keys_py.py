"""What is remembered of a key, and which idle key to forget first: the twin of the compiled one."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from collections.abc import Hashable

IDLE: Final = 0
WAITING: Final = 1
DISPATCHED: Final = 2

# Left-overs that the heap may hold beyond twice what is in it: pruning seldom is worth more.
SLACK = 64


@final
class KeyState:
    """What is remembered of one key.

    ``debt``     its virtual time at the landmark of the heap
    ``entry``    what waits, None otherwise; ``since`` and ``number`` are its time and place in line
    ``charge``   what its class was charged at dispatch, at the landmark
    ``rested``   counts keys that became idle: by it the one that is idle longest is known
    """

    __slots__ = (
        "charge",
        "debt",
        "entry",
        "key",
        "number",
        "rested",
        "since",
        "status",
        "work_class",
    )

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.debt = 0.0
        self.entry: Any = None
        self.since = 0.0
        self.number = -1
        self.charge = 0.0
        self.rested = -1
        self.status = IDLE
        self.work_class = 0


@final
class IdleKeys:
    """Keys of which nothing waits or runs: the one of the least debt is at hand.

    Of equal debts the one that is idle longest comes first. A heap from which nothing is deleted but
    its top: a key that becomes busy leaves its place behind, and is known by ``rested`` if it
    comes back. Left-overs are pruned before they outnumber the keys.
    """

    __slots__ = ("_count", "_heap", "_limit", "_rests")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._rests = 0
        self._heap: list[tuple[float, int, KeyState]] = []

    def add(self, state: KeyState) -> KeyState | None:
        """The key has become idle. Returns the one to forget, if there is one too many.

        That is the one of the least debt, this one included: the least loss. To push out a greater
        debt, an attacker would have to run up as much for every place there is.
        """
        forgotten = None
        if self._count == self._limit:
            forgotten = self._least()
            if forgotten.debt > state.debt:
                return state
            heappop(self._heap)
            self.remove(forgotten)
        state.rested = self._rests
        self._rests += 1
        self._count += 1
        heappush(self._heap, (state.debt, state.rested, state))
        return forgotten

    def remove(self, state: KeyState) -> None:
        """The key is busy again, or forgotten."""
        state.rested = -1
        self._count -= 1
        if len(self._heap) > 2 * self._count + SLACK:
            self._heap = [place for place in self._heap if place[2].rested == place[1]]
            heapify(self._heap)

    def rescaled(self) -> None:
        """All debts have been multiplied by one factor, which may have made some equal."""
        self._heap = [
            (state.debt, rested, state) for _, rested, state in self._heap if state.rested == rested
        ]
        heapify(self._heap)

    def _least(self) -> KeyState:
        heap = self._heap
        while heap[0][2].rested != heap[0][1]:
            heappop(heap)
        return heap[0][2]

    def check_valid(self, states: list[KeyState]) -> None:
        """Assert the invariants, ``states`` being the idle keys; for tests.

        :raises AssertionError: when one does not hold.
        """
        _require(len(states) == self._count, "the number of idle keys is wrong")
        _require(self._count <= self._limit, "too many keys remembered")
        _require(len(self._heap) <= 2 * self._count + SLACK, "too many left-overs")
        placed = {id(state) for _, rested, state in self._heap if state.rested == rested}
        _require(placed == {id(state) for state in states}, "an idle key is not in the heap")
        for at, place in enumerate(self._heap):
            _require(place[:2] >= self._heap[(at - 1) >> 1][:2] or not at, "no heap")
            _require(place[2].rested != place[1] or place[2].debt == place[0], "an old debt")
            _require(place[1] < self._rests, "a rest out of range")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(f"IdleKeys: {message}")
