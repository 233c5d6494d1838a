"""What a work class has used, and what of it waits; the compiled half has it in its heap."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, final

from prosody._core.constants import ESTIMATE_RUNS
from prosody._core.short_line_py import ShortLine
from prosody._core.waiting_line_py import WaitingLine

if TYPE_CHECKING:
    from prosody._core.idle_keys_py import KeyState


@final
class ClassAccount:
    """What a work class has used: runs completed, and estimates for those dispatched.

    The two are kept apart, and the estimates are set to nothing when nothing is dispatched, so that
    no rounding error of what was charged and given back is left over. The estimate is the mean of
    the runs completed: the plain mean at first, then one that forgets the old ones.
    """

    __slots__ = (
        "_max_wait",
        "_wait_weight",
        "dispatched",
        "estimated",
        "line",
        "mean_run",
        "runs",
        "settled",
        "weight",
    )

    def __init__(self, weight: float, max_wait: float, wait_weight: float) -> None:
        self.weight = weight
        self.line: ShortLine | WaitingLine = ShortLine(max_wait, wait_weight, [])
        self._max_wait = max_wait
        self._wait_weight = wait_weight
        self.settled = 0.0
        self.estimated = 0.0
        self.dispatched = 0
        self.mean_run = 0.0
        self.runs = 0

    def lengthen(self) -> WaitingLine:
        """The short line is full: go on with a long one."""
        line = self.line = WaitingLine(self._max_wait, self._wait_weight, self.line.states())
        return line

    def shorten(self) -> ShortLine:
        """Little waits in the long line: go on with a short one."""
        line = self.line = ShortLine(self._max_wait, self._wait_weight, self.line.states())
        return line

    def charge(self, growth: float) -> float:
        """An entry is dispatched: charge the estimate, and return what that is at the landmark."""
        charge = self.mean_run * growth
        self.estimated += charge
        self.dispatched += 1
        return charge

    def give_back(self, charge: float) -> None:
        """The entry is dispatched no longer: take the estimate back."""
        self.dispatched -= 1
        left = self.estimated - charge
        self.estimated = left if self.dispatched and left > 0.0 else 0.0

    def complete(self, charge: float, used: float, growth: float) -> float:
        """The entry ran for ``used`` seconds: charge those instead, and return them at the landmark."""
        dispatched = self.dispatched = self.dispatched - 1
        estimated = self.estimated - charge
        self.estimated = estimated if dispatched and estimated > 0.0 else 0.0
        if self.runs < ESTIMATE_RUNS:
            self.runs += 1
        self.mean_run += (used - self.mean_run) / self.runs
        charge = used * growth
        self.settled += charge
        return charge

    def time(self, decay: float) -> float:
        """Seconds charged, decayed to now."""
        return (self.settled + self.estimated) * decay

    def score(self, decay: float) -> float:
        """By which the class is chosen: the lowest runs."""
        if self.weight == 0.0:
            return inf
        return self.time(decay) / self.weight

    def rescale(self, factor: float) -> None:
        """Multiply every charge by ``factor``: the landmark moves."""
        self.line.rebuild()
        self.settled *= factor
        self.estimated *= factor

    def check_valid(self, waiting: list[KeyState], dispatched: int) -> None:
        """Assert the invariants, with these waiting and so many dispatched; for tests.

        :raises AssertionError: when one does not hold.
        """
        self.line.check_valid(waiting)
        _require(dispatched == self.dispatched, "dispatched does not add up")
        _require(dispatched > 0 or self.estimated == 0.0, "an estimate left over")
        _require(0.0 <= self.estimated < inf, "an estimate out of range")
        _require(0.0 <= self.settled < inf, "a class time out of range")
        _require(0 <= self.runs <= ESTIMATE_RUNS, "runs out of range")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(f"ClassAccount: {message}")
