"""What waits of one work class, and the exact least priority among it: the twin of the compiled one."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from prosody._core.idle_keys_py import KeyState

LEAST_CAPACITY: Final = 64
_slot = attrgetter("slot")

SHIFT: Final = 5
BLOCK: Final = 1 << SHIFT
"""Of so many debts the least is kept. ``min`` of a slice is one call for all of them."""

DIRECT: Final = 64
"""So many debts are looked through as they are."""

ROUNDING: Final = 1e-14
"""Relative to what is added up, this is more than all that rounding can change."""


def priority(
    debt: float, since: float, decay: float, now: float, max_wait: float, wait_weight: float
) -> float:
    """The published formula; ``debt`` is virtual time at the landmark, ``decay`` from there to now."""
    wait = min((now - since) / max_wait, 1.0)
    return debt * decay - wait_weight * (wait * wait)


@final
class WaitingLine:
    """States of keys in order of arrival, each with its debt and the time it waits since.

    Why the choice is exact: in floats too, multiplication by what is not negative, division by what
    is positive, the minimum, the square and subtraction keep order. So what came no earlier
    and owes no less than another never has a lower priority, now or later, and a tie goes to the one
    that came first. What can be chosen are those that owe less than all before them: the *steps*
    of a staircase, along which debt falls and arrival grows. No step waits longer than those before
    it, so what one has waited bounds what is made up for behind it: most steps owe more than that,
    and are passed over unseen.

    Each has a slot, in order of arrival; slots are not used again until all of them are filled
    and the line is moved to the front of new ones. A tree of minima over the slots, 32 to a node,
    finds the steps that come to light when one is taken away. Each becomes a step at most once,
    hence a logarithmic cost each, rebuilding included.
    """

    __slots__ = (
        "_capacity",
        "_debts",
        "_live_least",
        "_max_wait",
        "_minima",
        "_owed",
        "_states",
        "_steps",
        "_wait_weight",
        "live",
    )

    def __init__(self, max_wait: float, wait_weight: float) -> None:
        self._max_wait = max_wait
        self._wait_weight = wait_weight
        self.live = 0
        """How many wait."""
        self._capacity = LEAST_CAPACITY
        # So few are worth less memory.
        self._live_least = -1
        # By slot. None and an infinite debt stand where something was taken away.
        self._states: list[Any] = []
        self._debts: list[float] = []
        # The least of each 32 debts, and upon each level but the last the least of each 32 of it.
        self._minima: list[list[float]] = [[]]
        self._steps: list[KeyState] = []
        # Their debts below zero: so they grow, as bisection wants it.
        self._owed: list[float] = []

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

    def priority(self, state: KeyState, decay: float, now: float) -> float:
        """The priority of one that waits."""
        return priority(state.debt, state.since, decay, now, self._max_wait, self._wait_weight)

    def _least(self, last: int, decay: float, now: float) -> int:
        """The step of the least priority, of equal ones the first; ``last`` is the last one."""
        steps, owed = self._steps, self._owed
        max_wait, wait_weight = self._max_wait, self._wait_weight
        # The formula twice, spelt out: calls would double the time of the whole.
        chosen = last
        state = steps[last]
        wait = (now - state.since) / max_wait
        if wait > 1.0:  # noqa: PLR1730 (min would be a call)
            wait = 1.0
        debt = state.debt * decay
        least = debt - wait_weight * (wait * wait)
        margin = ROUNDING * (debt + wait_weight)
        step = 0
        while step < last:
            state = steps[step]
            wait = (now - state.since) / max_wait
            if wait > 1.0:  # noqa: PLR1730
                wait = 1.0
            boost = wait_weight * (wait * wait)
            other = state.debt * decay - boost
            if other <= least and (other < least or step < chosen):
                chosen, least = step, other
            # No step behind has a greater boost. The next one that does not owe too much for it:
            step = bisect_left(owed, -(least + boost + margin) / decay, step + 1)
        return chosen

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
        kept = [state for state in self._states if state is not None]
        self._states = kept
        self._debts = level = [state.debt for state in kept]
        capacity = self._capacity = max(LEAST_CAPACITY, 3 * len(kept))
        self._live_least = capacity // 8 if capacity > LEAST_CAPACITY else -1
        self._minima = []
        while capacity > BLOCK:
            level = [min(level[first : first + BLOCK]) for first in range(0, len(level), BLOCK)]
            self._minima.append(level)
            capacity = -(-capacity >> SHIFT)
        self._steps = []
        least = inf
        for slot, state in enumerate(kept):
            state.slot = slot
            if state.debt < least:
                least = state.debt
                self._steps.append(state)
        self._owed = [-state.debt for state in self._steps]

    def check_valid(self, expected: list[KeyState]) -> None:
        """Assert the invariants, ``expected`` being what waits; for tests.

        :raises AssertionError: when one does not hold.
        """
        debts = self._debts
        held = [state for state in self._states if state is not None]
        _require({id(state) for state in held} == {id(state) for state in expected}, "others wait")
        _require(len(held) == len(expected) == self.live, "the number of those that wait is wrong")
        _require(len(self._states) == len(debts) <= self._capacity, "slots do not add up")
        _require(
            self._capacity == LEAST_CAPACITY or 8 * self.live > self._capacity, "too much memory"
        )
        _require(len(self._minima[-1]) <= BLOCK, "a level too few")
        for below, level in pairwise([debts, *self._minima]):
            minima = [min(below[first : first + BLOCK]) for first in range(0, len(below), BLOCK)]
            _require(level == minima, "the tree of minima is wrong")
        since = [state.since for state in held]
        _require(since == sorted(since), "times are out of order")
        least = inf
        steps = []
        for slot, state in enumerate(self._states):
            if state is None:
                _require(debts[slot] == inf, "nobody's debt")
                continue
            _require(state.slot == slot, "a state is in another's slot")
            _require(state.debt == debts[slot], "an old debt")
            if state.debt < least:
                least = state.debt
                steps.append(state)
        _require(
            [id(step) for step in self._steps] == [id(step) for step in steps],
            "the staircase is wrong",
        )
        _require(self._owed == [-step.debt for step in steps], "what steps owe is wrong")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(f"WaitingLine: {message}")
