"""What waits of one work class while that is not much: two plain lists."""

from __future__ import annotations

from bisect import bisect_left
from math import inf
from typing import TYPE_CHECKING, Final, final

from prosody._core.staircase_py import Staircase, require

if TYPE_CHECKING:
    from prosody._core.idle_keys_py import KeyState

SHORT: Final = 256
"""A line of more is made a long one."""


@final
class ShortLine(Staircase):
    """What waits, in order of arrival, without gaps.

    Up to so many, looking through all debts, or closing a gap by moving what lies behind it, is one
    call of C each and costs less than to keep anything that spares it.
    """

    __slots__ = ("_debts", "_number", "_numbers", "_states")

    def __init__(self, max_wait: float, wait_weight: float, states: list[KeyState]) -> None:
        """:param states: what waits already, in order of arrival."""
        super().__init__(max_wait, wait_weight, 0, SHORT)
        self._states = states
        self._debts: list[float] = []
        # They grow with the place, which is found by bisection.
        self._numbers: list[int] = []
        self._number = 0
        self.live = len(states)
        self.rebuild()

    def append(self, state: KeyState) -> None:
        """Let it wait behind the others, with the debt and the time that it says."""
        self.live += 1
        self._states.append(state)
        state.slot = number = self._number
        self._number = number + 1
        self._numbers.append(number)
        debt = state.debt
        self._debts.append(debt)
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
        self._remove(bisect_left(self._numbers, state.slot), step)
        return state

    def withdraw(self, state: KeyState) -> None:
        """Take out one that waits."""
        place = bisect_left(self._numbers, state.slot)
        step = bisect_left(self._owed, -state.debt)
        if step < len(self._steps) and self._steps[step] is state:
            self._remove(place, step)
        else:
            self.live -= 1
            del self._debts[place], self._states[place], self._numbers[place]

    def states(self) -> list[KeyState]:
        """What waits, in order of arrival; for the line that takes the place of this one."""
        return self._states

    def rebuild(self) -> None:
        """Debts have changed: all by one factor, which may have made some equal."""
        self._debts = [state.debt for state in self._states]
        self._number = len(self._states)
        self._numbers = list(range(self._number))
        for number, state in enumerate(self._states):
            state.slot = number
        self._climb(self._states)

    def _remove(self, place: int, step: int) -> None:
        """Take out a step. Those take its place that owe less than all before them, now it has gone."""
        states, debts, steps, owed = self._states, self._debts, self._steps, self._owed
        self.live -= 1
        del states[place], debts[place], self._numbers[place]
        if step + 1 < len(steps):
            covered = debts[place : bisect_left(self._numbers, steps[step + 1].slot)]
        else:
            covered = debts[place:]
        bound = steps[step - 1].debt if step else inf
        if not covered or not (least := min(covered)) < bound:
            del steps[step], owed[step]
            return
        # From the last one back: the least of all, the least of those before it, and so on.
        at = covered.index(least)
        steps[step] = states[place + at]
        owed[step] = -least
        while at:
            del covered[at:]
            least = min(covered)
            if not least < bound:
                break
            at = covered.index(least)
            steps.insert(step, states[place + at])
            owed.insert(step, -least)

    def check_valid(self, expected: list[KeyState]) -> None:
        """Assert the invariants, ``expected`` being what waits; for tests.

        :raises AssertionError: when one does not hold.
        """
        self._check_steps(self._states, expected)
        require(self._debts == [state.debt for state in self._states], "an old debt")
        require(self._numbers == [state.slot for state in self._states], "an old number")
        require(self._numbers == sorted(set(self._numbers)), "numbers out of order")
        require(not self._numbers or self._numbers[-1] < self._number, "a number out of range")
        require(self.live <= self.most, "a short line is too long")
