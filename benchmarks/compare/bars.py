"""What has to be reached against whom, computed from the outcomes of the very run.

A value is the median over the rounds of each round's ratio.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.compare import rivals as r
from benchmarks.compare.works import cases, waiting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.compare.outcome import Outcome
    from benchmarks.compare.rivals import Entrant

BEST_ORDERED = "the best rival that keeps order per key"
MET, AIM, MISSED, NOT_MEASURED = "met", "aim reached", "MISSED", "NOT MEASURED"


@dataclass(frozen=True)
class Bar:
    """A figure of ours over the same figure of another."""

    case: str
    """Key of ours' case."""
    ours: Entrant
    against: Entrant | None
    """None: the best of the rivals that keep order."""
    floor: float | None
    aim: float
    figure: str = "rate"
    other_case: str = ""
    """Where the other's figure is from, if not from the same case."""
    less: bool = False
    """The ratio must be at most this: for latencies."""
    label: str = ""
    """Where the row's letter does not say which case."""

    @property
    def text(self) -> str:
        other = BEST_ORDERED if self.against is None else self.against.name
        where = f" in ({self.other_case[0]})" if self.other_case else ""
        what = "p99 latency" if self.figure == "p99_s" else "messages/s"
        return f"({self.label or self.case[0]}) {what}: {self.ours.name} / {other}{where}"

    def ratios(self, outcomes: Sequence[Outcome]) -> list[float]:
        """Of each round that has both figures."""
        mine = self._by_round(outcomes, self.case, self.ours.name)
        others = self._others(outcomes)
        return [mine[number] / others[number] for number in sorted(mine) if number in others]

    def _others(self, outcomes: Sequence[Outcome]) -> dict[int, float]:
        """The other's figure by round. Without a name it is one rival, the best by its median: the best of
        each round would be whoever was lucky."""
        case = self.other_case or self.case
        if self.against is not None:
            return self._by_round(outcomes, case, self.against.name)
        rivals = dict.fromkeys(
            o.entrant.name
            for o in outcomes
            if o.case == case and o.entrant.ordered and not o.entrant.ours
        )
        figures = [found for name in rivals if (found := self._by_round(outcomes, case, name))]
        choose = min if self.less else max
        return choose(figures, key=lambda found: statistics.median(found.values()), default={})

    def _by_round(self, outcomes: Sequence[Outcome], case: str, name: str) -> dict[int, float]:
        """An entrant's figure in a case, by round."""
        return {
            o.round: value
            for o in outcomes
            if o.case == case and o.entrant.name == name and not o.failure
            and (value := o.figure(self.figure))
        }  # fmt: skip

    def value(self, outcomes: Sequence[Outcome]) -> float | None:
        ratios = self.ratios(outcomes)
        return statistics.median(ratios) if ratios else None

    def verdict(self, outcomes: Sequence[Outcome]) -> str:
        value = self.value(outcomes)
        if value is None:
            return NOT_MEASURED
        if self._holds(value, self.aim):
            return AIM
        return MET if self.floor is None or self._holds(value, self.floor) else MISSED

    def _holds(self, value: float, limit: float) -> bool:
        return value <= limit if self.less else value >= limit


def bars() -> list[Bar]:
    keys = {case.row: case.key for case in cases()}
    wide = waiting(0.010, 256)
    (ours_wide, _), (tasks_wide, _), *_ = wide.entrants
    a, b, e, f, h = (keys[row] for row in "abefh")
    return [
        Bar(a, r.DEFAULTS, r.EVENTS_DEFAULTS, 100, 300),
        Bar(b, r.BEST, r.EVENTS_BEST, 10, 25),
        Bar(a, r.DEFAULTS, r.FASTSTREAM, 3, 6),
        Bar(a, r.DEFAULTS, r.BARE, 0.25, 0.5),
        Bar(wide.key, ours_wide, tasks_wide, 0.9, 1.0, label="c, 10 ms, 256 at once"),
        Bar(e, r.DEFAULTS, r.EVENTS_DEFAULTS, 5, 10),
        Bar(e, r.BEST_ASKING, r.EVENTS_BEST, 5, 10),
        Bar(f, r.BEST, r.BEST, 0.6, 0.9, other_case=b),
        Bar(h, r.BEST, None, 1.0, 0.5, figure="p99_s", less=True),
        Bar(a, r.DEFAULTS_PURE, r.DEFAULTS, None, 0.5),
        Bar(b, r.BEST_PURE, r.BEST, None, 0.5),
    ]
