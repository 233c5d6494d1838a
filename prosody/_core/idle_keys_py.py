"""What is remembered of a key, and which idle key to forget first: the twin of the compiled one."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
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
    ``account``  that of the work class in which it waits or was dispatched last
    ``entry``    what waits, None otherwise; ``since`` and ``slot`` are its time and place in line
    ``charge``   what its class was charged at dispatch, at the landmark
    ``rested``   tells keys apart by when they became idle; below 0 where there is no order among them
    """

    __slots__ = (
        "account",
        "charge",
        "debt",
        "entry",
        "key",
        "rested",
        "since",
        "slot",
        "status",
    )

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.debt = 0.0
        self.entry: Any = None
        self.since = 0.0
        self.slot = -1
        self.charge = 0.0
        self.rested = -1
        self.status = IDLE
        self.account: Any = None

    def check_valid(self, key: Hashable, latest: float) -> None:
        """Assert the invariants of a state filed under ``key``, at the ``latest`` time; for tests.

        :raises AssertionError: when one does not hold.
        """
        require(self.key is key, "a key is filed under another")
        require((self.entry is not None) == (self.status == WAITING), "an entry misplaced")
        require(self.rested < 0 or self.status == IDLE, "a busy key is at rest")
        require(0.0 <= self.debt < inf, "a debt out of range")
        require(self.since <= latest, "an entry from the future")


@final
class IdleKeys:
    """Keys of which nothing waits or runs: the one of the least debt is at hand.

    Of equal debts the one that is idle longest comes first. There is no order among them until there
    are as many as may be; then a heap, from which nothing is deleted but its top: a key that becomes
    busy leaves its place behind, and is known by ``rested`` if it comes back. Left-overs are pruned
    before they outnumber the keys, and the heap is given up where half of the room is free.

    While there is no heap, a key is put into ``states`` or taken out, and nothing else is to be done:
    the one that owns the keys does it itself.
    """

    __slots__ = ("_rests", "heap", "limit", "states")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._rests = 0
        self.states: dict[KeyState, None] = {}
        """In the order in which they became idle."""
        self.heap: list[tuple[float, int, KeyState]] | None = None

    def add(self, state: KeyState) -> KeyState | None:
        """The key has become idle. Returns the one to forget, if there is one too many.

        That is the one of the least debt, this one included: the least loss. To push out a greater
        debt, an attacker would have to run up as much for every place there is.
        """
        states = self.states
        forgotten = None
        if len(states) == self.limit:
            forgotten = self._least()
            if forgotten.debt > state.debt:
                return state
            self.remove(forgotten)
        states[state] = None
        if self.heap is not None:
            state.rested = self._rests
            self._rests += 1
            heappush(self.heap, (state.debt, state.rested, state))
        return forgotten

    def remove(self, state: KeyState) -> None:
        """The key is busy again, or forgotten."""
        state.rested = -1
        states = self.states
        del states[state]
        heap = self.heap
        if heap is not None and len(heap) > 2 * len(states) + SLACK:
            if 2 * len(states) < self.limit:
                self.heap = None
                for each in states:
                    each.rested = -1
            else:
                self._order()

    def rescaled(self) -> None:
        """All debts have been multiplied by one factor, which may have made some equal."""
        if self.heap is not None:
            self._order()

    def _order(self) -> list[tuple[float, int, KeyState]]:
        """A heap of all there are, numbered in the order in which they became idle."""
        self._rests = len(self.states)
        heap = self.heap = []
        for rested, state in enumerate(self.states):
            state.rested = rested
            heap.append((state.debt, rested, state))
        heapify(heap)
        return heap

    def _least(self) -> KeyState:
        heap = self.heap
        if heap is None:
            heap = self._order()
        while heap[0][2].rested != heap[0][1]:
            heappop(heap)
        return heap[0][2]

    def check_valid(self, states: list[KeyState]) -> None:
        """Assert the invariants, ``states`` being the idle keys; for tests.

        :raises AssertionError: when one does not hold.
        """
        require(self.states.keys() == set(states), "others are idle")
        require(len(states) <= self.limit, "too many keys remembered")
        heap = self.heap
        if heap is None:
            require(all(state.rested == -1 for state in states), "an order of what has none")
            return
        rests = [state.rested for state in self.states]
        require(rests == sorted(set(rests)), "a rest out of order")
        require(all(0 <= rested < self._rests for rested in rests), "a rest out of range")
        require(len(heap) <= 2 * len(states) + SLACK, "too many left-overs")
        placed = {state for _, rested, state in heap if state.rested == rested}
        require(placed == set(states), "an idle key is not in the heap")
        for at, place in enumerate(heap):
            require(place[:2] >= heap[(at - 1) >> 1][:2] or not at, "no heap")
            require(place[2].rested != place[1] or place[2].debt == place[0], "an old debt")


def require(holds: bool, message: str) -> None:
    """Raise AssertionError unless it ``holds``."""
    # Not an assert statement: python -O would drop that, and the check is all this is for.
    if not holds:
        raise AssertionError(f"virtual-time heap: {message}")
