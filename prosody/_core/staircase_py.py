"""Which of those that wait has the least priority: what short and long lines have in common."""

from __future__ import annotations

from bisect import bisect_left
from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prosody._core.idle_keys_py import KeyState

ROUNDING: Final = 1e-14
"""Relative to what is added up, this is more than all that rounding can change."""


def priority(
    debt: float, since: float, decay: float, now: float, max_wait: float, wait_weight: float
) -> float:
    """The published formula; ``debt`` is virtual time at the landmark, ``decay`` from there to now."""
    wait = min((now - since) / max_wait, 1.0)
    return debt * decay - wait_weight * (wait * wait)


class Staircase:
    """States of keys in order of arrival, each with its debt and the time it waits since.

    Why the choice is exact: in floats too, multiplication by what is not negative, division by what
    is positive, the minimum, the square and subtraction keep order. So what came no earlier
    and owes no less than another never has a lower priority, now or later, and a tie goes to the one
    that came first. What can be chosen are those that owe less than all before them: the *steps*
    of a staircase, along which debt falls and arrival grows. No step waits longer than those before
    it, so what one has waited bounds what is made up for behind it: most steps owe more than that,
    and are passed over unseen.
    """

    __slots__ = ("_max_wait", "_owed", "_steps", "_wait_weight", "fewest", "live", "most")

    def __init__(self, max_wait: float, wait_weight: float, fewest: int, most: int) -> None:
        self._max_wait = max_wait
        self._wait_weight = wait_weight
        self.live = 0
        """How many wait."""
        self.fewest = fewest
        """With less than that, a shorter kind of line takes its place; with ``most``, a longer one."""
        self.most = most
        self._steps: list[KeyState] = []
        # Their debts below zero: so they grow, as bisection wants it.
        self._owed: list[float] = []

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

    def _climb(self, states: Iterable[KeyState]) -> None:
        """Find the steps anew among ``states``, in order of arrival."""
        self._steps = []
        least = inf
        for state in states:
            if state.debt < least:
                least = state.debt
                self._steps.append(state)
        self._owed = [-state.debt for state in self._steps]

    def _check_steps(self, states: list[KeyState], expected: list[KeyState]) -> None:
        """Assert that these wait, in this order, that they are as ``expected``, and the steps."""
        require({id(state) for state in states} == {id(state) for state in expected}, "others wait")
        require(len(states) == len(expected) == self.live, "the number of those that wait is wrong")
        since = [state.since for state in states]
        require(since == sorted(since), "times are out of order")
        found = Staircase(self._max_wait, self._wait_weight, 0, 0)
        found._climb(states)
        require(list(map(id, self._steps)) == list(map(id, found._steps)), "the staircase is wrong")
        require(self._owed == found._owed, "what steps owe is wrong")


def require(holds: bool, message: str) -> None:
    """Raise AssertionError unless it ``holds``."""
    # Not an assert statement: python -O would drop that, and the check is all this is for.
    if not holds:
        raise AssertionError(f"waiting line: {message}")
