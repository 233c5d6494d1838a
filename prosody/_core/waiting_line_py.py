"""What waits of one work class, and the exact least priority among it: the twin of the compiled one."""

from __future__ import annotations

from bisect import bisect_left
from math import inf
from typing import Generic, TypeVar, final

Item = TypeVar("Item")

LEAST_CAPACITY = 16
# Of the staircase, stretches up to HALVED long are looked at in pieces of SCAN steps.
SCAN = 8
HALVED = 96


def priority(
    debt: float, since: float, decay: float, now: float, max_wait: float, wait_weight: float
) -> float:
    """The published formula; ``debt`` is virtual time at the landmark, ``decay`` from there to now."""
    wait = min((now - since) / max_wait, 1.0)
    return debt * decay - wait_weight * (wait * wait)


@final
class WaitingLine(Generic[Item]):
    """Items in order of arrival, each with its debt and the time it waits since.

    Why the choice is exact: in floats too, multiplication by what is not negative, division by what
    is positive, the minimum, the square and subtraction keep order. So an item that came no earlier
    and owes no less than another never has a lower priority, now or later, and a tie goes to the one
    that came first. What can be chosen are the items that owe less than all before them: the *steps*
    of a staircase, along which debt falls and arrival grows. The first and the last of a stretch of
    steps bound what any step between can have, so that most stretches are passed over unseen.

    Each item has a slot, in order of arrival; slots are not used again until all of them are filled
    and the line is moved to the front of new ones. A tree of minima over the slots finds the
    steps that come to light when one is taken away. Each item becomes a step at most once, hence a
    logarithmic cost each, rebuilding included.
    """

    __slots__ = (
        "_appended",
        "_capacity",
        "_items",
        "_max_wait",
        "_numbers",
        "_since",
        "_step_debts",
        "_step_since",
        "_step_slots",
        "_tree",
        "_wait_weight",
        "live",
    )

    def __init__(self, max_wait: float, wait_weight: float) -> None:
        self._max_wait = max_wait
        self._wait_weight = wait_weight
        self._appended = 0
        self.live = 0
        """Items that wait."""
        self._capacity = LEAST_CAPACITY
        # By slot. None and an infinite debt stand where something was taken away.
        self._items: list[Item | None] = []
        self._since: list[float] = []
        self._numbers: list[int] = []
        # The debts of the slots begin at ``capacity``; the least of nodes 2n and 2n+1 is in n.
        self._tree = [inf] * (2 * LEAST_CAPACITY)
        self._step_debts: list[float] = []
        self._step_since: list[float] = []
        self._step_slots: list[int] = []

    def append(self, item: Item, debt: float, since: float) -> int:
        """Let ``item`` wait behind the others; the number by which it can be withdrawn."""
        slot = len(self._items)
        if slot == self._capacity:
            self._rebuild()
            slot = self.live
        number = self._appended
        self._appended += 1
        self.live += 1
        self._items.append(item)
        self._since.append(since)
        self._numbers.append(number)
        tree = self._tree
        node = slot + self._capacity
        while node and tree[node] > debt:
            tree[node] = debt
            node >>= 1
        if not self._step_debts or debt < self._step_debts[-1]:
            self._step_debts.append(debt)
            self._step_since.append(since)
            self._step_slots.append(slot)
        return number

    def pop_least(self, decay: float, now: float) -> Item:
        """Take the item of the least priority out of a line that is not empty."""
        step = self._least(decay, now)
        return self._remove(self._step_slots[step], step)

    def withdraw(self, number: int) -> None:
        """Take out the item that ``append`` gave this number."""
        slot = bisect_left(self._numbers, number)
        step = bisect_left(self._step_slots, slot)
        is_step = step < len(self._step_slots) and self._step_slots[step] == slot
        self._remove(slot, step if is_step else None)

    def rescale(self, factor: float) -> None:
        """Multiply every debt by ``factor``: the landmark moves."""
        leaves = self._tree
        for node in range(self._capacity, self._capacity + len(self._items)):
            if leaves[node] < inf:
                leaves[node] *= factor
        # Debts may have become equal, and of equal ones only the first is a step.
        self._rebuild()

    def priority(self, debt: float, since: float, decay: float, now: float) -> float:
        """The priority of an item that owes ``debt`` and waits since ``since``."""
        return priority(debt, since, decay, now, self._max_wait, self._wait_weight)

    def _least(self, decay: float, now: float) -> int:
        """The step of the least priority, of equal ones the first."""
        debts, since = self._step_debts, self._step_since
        max_wait, wait_weight = self._max_wait, self._wait_weight
        last = len(debts) - 1
        chosen = last
        least = priority(debts[last], since[last], decay, now, max_wait, wait_weight)
        if not last:
            return chosen
        # The formula once more, spelt out, here and below: calls would double the time of the whole.
        stretches = [(0, last)]
        while stretches:
            begin, end = stretches.pop()
            length = SCAN
            if end - begin > HALVED:
                length = end - begin
            for first in range(begin, end, length):
                behind = first + length
                if behind > end:  # noqa: PLR1730 (min would be a call)
                    behind = end
                # No step of the stretch owes less than its last, nor waits longer than its first.
                wait = (now - since[first]) / max_wait
                if wait > 1.0:  # noqa: PLR1730
                    wait = 1.0
                bound = debts[behind - 1] * decay - wait_weight * (wait * wait)
                if bound > least or (bound == least and chosen < first):
                    continue
                if length > SCAN:
                    middle = (first + behind) >> 1
                    stretches.append((middle, behind))
                    stretches.append((first, middle))
                    continue
                for step in range(first, behind):
                    wait = (now - since[step]) / max_wait
                    if wait > 1.0:  # noqa: PLR1730
                        wait = 1.0
                    other = debts[step] * decay - wait_weight * (wait * wait)
                    if other < least or (other == least and step < chosen):
                        chosen, least = step, other
        return chosen

    def _remove(self, slot: int, step: int | None) -> Item:
        item = self._items[slot]
        assert item is not None
        self._items[slot] = None
        self.live -= 1
        tree = self._tree
        node = slot + self._capacity
        tree[node] = inf
        while node > 1:
            least, other = tree[node], tree[node ^ 1]
            if other < least:  # noqa: PLR1730 (min would be a call)
                least = other
            node >>= 1
            if tree[node] == least:
                break
            tree[node] = least
        if step is not None:
            self._uncover(slot, step)
        if self._capacity > LEAST_CAPACITY and 8 * self.live <= self._capacity:
            self._rebuild()
        return item

    def _uncover(self, slot: int, step: int) -> None:
        """Put in the place of a step what owes less than all before it, now that it has gone."""
        debts, since, slots = self._step_debts, self._step_since, self._step_slots
        following = slots[step + 1] if step + 1 < len(slots) else -1
        slot = self._first_below(slot, debts[step - 1] if step else inf)
        if slot == following:
            del debts[step], since[step], slots[step]
            return
        debt = self._tree[self._capacity + slot]
        debts[step], since[step], slots[step] = debt, self._since[slot], slot
        while (slot := self._first_below(slot, debt)) != following:
            step += 1
            debt = self._tree[self._capacity + slot]
            debts.insert(step, debt)
            since.insert(step, self._since[slot])
            slots.insert(step, slot)

    def _first_below(self, slot: int, debt: float) -> int:
        """The first slot behind ``slot`` that owes less than ``debt``; -1 when none does."""
        tree, capacity = self._tree, self._capacity
        node = slot + capacity
        while node & 1 or not tree[node + 1] < debt:
            node >>= 1
            if node <= 1:
                return -1
        node += 1
        while node < capacity:
            node <<= 1
            if not tree[node] < debt:
                node += 1
        return node - capacity

    def _rebuild(self) -> None:
        """Close the gaps, in a tree that is between a quarter and half full."""
        kept = [slot for slot, item in enumerate(self._items) if item is not None]
        debts = [self._tree[self._capacity + slot] for slot in kept]
        capacity = LEAST_CAPACITY
        while capacity < 2 * (len(kept) + 1):
            capacity *= 2
        self._items = [self._items[slot] for slot in kept]
        self._since = [self._since[slot] for slot in kept]
        self._numbers = [self._numbers[slot] for slot in kept]
        levels = [debts + [inf] * (capacity - len(debts))]
        while len(levels[-1]) > 1:
            levels.append(list(map(min, levels[-1][::2], levels[-1][1::2])))
        self._tree = [inf]
        for level in reversed(levels):
            self._tree += level
        self._capacity = capacity
        self._step_slots = []
        least = inf
        for slot, debt in enumerate(debts):
            if debt < least:
                least = debt
                self._step_slots.append(slot)
        self._step_debts = [debts[slot] for slot in self._step_slots]
        self._step_since = [self._since[slot] for slot in self._step_slots]

    def check_valid(self) -> None:
        """Assert the invariants; for tests.

        :raises AssertionError: when one does not hold.
        """
        slots = len(self._items)
        leaves = self._tree[self._capacity :]
        _require(len(self._since) == len(self._numbers) == slots, "slots do not add up")
        _require(slots <= self._capacity == len(leaves), "more slots than capacity")
        _require(
            self._capacity == LEAST_CAPACITY or 8 * self.live > self._capacity, "too much memory"
        )
        _require(all(debt == inf for debt in leaves[slots:]), "a debt beyond the last slot")
        for node in range(1, self._capacity):
            least = min(self._tree[2 * node], self._tree[2 * node + 1])
            _require(self._tree[node] == least, "the tree of minima is wrong")
        _require(self._numbers == sorted(set(self._numbers)), "numbers are out of order")
        _require(self._since == sorted(self._since), "times are out of order")
        live = 0
        least = inf
        steps = []
        for slot, item in enumerate(self._items):
            debt = leaves[slot]
            _require((item is None) == (debt == inf), "a debt of nobody, or nobody's debt")
            live += item is not None
            if debt < least:
                least = debt
                steps.append((slot, debt, self._since[slot]))
        _require(live == self.live, "the number of items is wrong")
        stored = zip(self._step_slots, self._step_debts, self._step_since, strict=True)
        _require(list(stored) == steps, "the staircase is wrong")

    def check_holds(self, expected: dict[int, tuple[Item, float]]) -> None:
        """Assert that it holds these items, by number, with these debts; for tests."""
        debts = self._tree[self._capacity :]
        held = zip(self._numbers, self._items, debts, strict=False)
        found = {number: (item, debt) for number, item, debt in held if item is not None}
        _require(found == expected, "it holds something else")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(f"WaitingLine: {message}")
