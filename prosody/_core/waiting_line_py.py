"""What waits of one work class when that is much: the twin of the compiled line, in Python."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from math import inf
from operator import attrgetter
from sys import maxsize
from typing import TYPE_CHECKING, Any, Final, final

from prosody._core.staircase_py import Staircase, require

if TYPE_CHECKING:
    from prosody._core.idle_keys_py import KeyState

LEAST_CAPACITY: Final = 64

FEWEST: Final = 64
"""A line of less is made a short one."""

_slot = attrgetter("slot")

SHIFT: Final = 5
BLOCK: Final = 1 << SHIFT
"""Of so many debts the least is kept. ``min`` of a slice is one call for all of them."""

DIRECT: Final = 64
"""So many debts are looked through as they are."""


@final
class WaitingLine(Staircase):
    """What waits, in order of arrival, with gaps.

    Each has a slot, in order of arrival; slots are not used again until all of them are filled
    and the line is moved to the front of new ones. A tree of minima over the slots, 32 to a node,
    finds the steps that come to light when one is taken away. Each becomes a step at most once,
    hence a logarithmic cost each, rebuilding included.
    """

    __slots__ = ("_capacity", "_debts", "_live_least", "_minima", "_states")

    def __init__(self, max_wait: float, wait_weight: float, states: list[KeyState]) -> None:
        """:param states: what waits already, in order of arrival."""
        super().__init__(max_wait, wait_weight, FEWEST, maxsize)
        # By slot. None and an infinite debt stand where something was taken away.
        self._states: list[Any] = states
        self._debts: list[float] = []
        # The least of each 32 debts, and upon each level but the last the least of each 32 of it.
        self._minima: list[list[float]] = []
        self._capacity = 0
        self._live_least = 0
        """So few are worth less memory."""
        self.live = len(states)
        self.rebuild()

    def append(self, state: KeyState) -> None:
        """Let it wait behind the others, with the debt and the time that it says."""
        states = self._states
        slot = len(states)
        if slot == self._capacity:
            self.rebuild()
            states = self._states
            slot = len(states)
        state.slot = slot
        debt = state.debt
        self.live += 1
        states.append(state)
        self._debts.append(debt)
        for level in self._minima:
            slot >>= SHIFT
            if slot == len(level):
                level.append(debt)
            elif debt < level[slot]:
                level[slot] = debt
            else:
                break
        steps = self._steps
        if not steps or debt < steps[-1].debt:
            steps.append(state)
            self._owed.append(-debt)

    def pop_least(self, decay: float, now: float) -> KeyState:
        """Take the state of the least priority out of a line that is not empty."""
        steps = self._steps
        step = len(steps) - 1
        if step:
            step = self._least(step, decay, now)
        state = steps[step]
        self._remove(state, step)
        return state

    def withdraw(self, state: KeyState) -> None:
        """Take out one that waits."""
        steps = self._steps
        step = bisect_left(steps, state.slot, key=_slot)
        is_step = step < len(steps) and steps[step] is state
        self._remove(state, step if is_step else None)

    def states(self) -> list[KeyState]:
        """What waits, in order of arrival; for the line that takes the place of this one."""
        return [state for state in self._states if state is not None]

    def _remove(self, state: KeyState, step: int | None) -> None:
        slot = place = state.slot
        debt = state.debt
        self._states[slot] = None
        self.live -= 1
        below = debts = self._debts
        debts[slot] = inf
        for level in self._minima:
            place >>= SHIFT
            if level[place] != debt:
                break
            first = place << SHIFT
            level[place] = least = min(below[first : first + BLOCK])
            if least == debt:
                break
            below = level
        if step is not None:
            steps = self._steps
            behind = steps[step + 1].slot if step + 1 < len(steps) else len(debts)
            if slot + 1 < behind:
                self._uncover(step, slot + 1, behind)
            else:
                del steps[step], self._owed[step]
        if self.live <= self._live_least:
            self.rebuild()

    def _uncover(self, step: int, first: int, behind: int) -> None:
        """Put in the place of a step what owes less than all before it, now that it has gone.

        That is to be found from the slot ``first`` on, before ``behind``, that of the next step.
        """
        debts, states = self._debts, self._states
        bound = self._steps[step - 1].debt if step else inf
        uncovered: list[KeyState] = []
        # From the last one back: the least of all, the least of those before it, and so on.
        while first < behind:
            if behind - first > DIRECT:
                least, behind = self._least_between(first, behind)
            else:
                part = debts[first:behind]
                least = min(part)
                behind = first + part.index(least)
            if not least < bound:
                break
            uncovered.append(states[behind])
        if uncovered:
            uncovered.reverse()
            self._steps[step : step + 1] = uncovered
            self._owed[step : step + 1] = [-state.debt for state in uncovered]
        else:
            del self._steps[step], self._owed[step]

    def _least_between(self, first: int, behind: int) -> tuple[float, int]:
        """The least debt of these slots, and the first slot that owes it."""
        levels = [self._debts, *self._minima]
        lefts: list[tuple[int, int, int]] = []
        rights: list[tuple[int, int, int]] = []
        depth = 0
        # At each level what is not in whole nodes of the next one.
        while behind - first > DIRECT and depth + 1 < len(levels):
            inner_first, inner_behind = -(-first >> SHIFT), behind >> SHIFT
            lefts.append((depth, first, inner_first << SHIFT))
            rights.append((depth, inner_behind << SHIFT, behind))
            first, behind = inner_first, inner_behind
            depth += 1
        parts = [*lefts, (depth, first, behind), *reversed(rights)]
        least = inf
        slot = first
        for height, start, stop in parts:
            part = levels[height][start:stop]
            if part and (found := min(part)) < least:
                least = found
                depth, slot = height, start + part.index(found)
        while depth:
            depth -= 1
            slot = levels[depth].index(least, slot << SHIFT)
        return least, slot

    def rebuild(self) -> None:
        """Close the gaps, with room for twice as many more.

        Also when debts have changed: all by one factor, which may have made some equal.
        """
        kept = self.states()
        self._states = kept
        self._debts = level = [state.debt for state in kept]
        capacity = self._capacity = max(LEAST_CAPACITY, 3 * len(kept))
        self._live_least = capacity // 8 if capacity > LEAST_CAPACITY else -1
        self._minima = []
        while capacity > BLOCK:
            level = [min(level[first : first + BLOCK]) for first in range(0, len(level), BLOCK)]
            self._minima.append(level)
            capacity = -(-capacity >> SHIFT)
        for slot, state in enumerate(kept):
            state.slot = slot
        self._climb(kept)

    def check_valid(self, expected: list[KeyState]) -> None:
        """Assert the invariants, ``expected`` being what waits; for tests.

        :raises AssertionError: when one does not hold.
        """
        debts = self._debts
        self._check_steps([state for state in self._states if state is not None], expected)
        require(len(self._states) == len(debts) <= self._capacity, "slots do not add up")
        require(
            self._capacity == LEAST_CAPACITY or 8 * self.live > self._capacity, "too much memory"
        )
        require(len(self._minima[-1]) <= BLOCK, "a level too few")
        for below, level in pairwise([debts, *self._minima]):
            minima = [min(below[first : first + BLOCK]) for first in range(0, len(below), BLOCK)]
            require(level == minima, "the tree of minima is wrong")
        for slot, state in enumerate(self._states):
            if state is None:
                require(debts[slot] == inf, "nobody's debt")
                continue
            require(state.slot == slot, "a state is in another's slot")
            require(state.debt == debts[slot], "an old debt")
