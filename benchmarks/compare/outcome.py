"""What one run of one entrant came to, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.compare.rivals import Entrant

FAULTS = ("order_faults", "repeated", "lost", "uncommitted", "keys_missing")


@dataclass(frozen=True)
class Outcome:
    """Of one round."""

    case: str
    entrant: Entrant
    count: int
    round: int
    figures: dict[str, Any] = field(default_factory=dict)
    """As the script says them; ``uncommitted`` and ``keys_missing`` are found from outside."""
    failure: str = ""
    """Why there are no figures: it hung, or ended with an error."""

    @property
    def rate(self) -> float | None:
        """Messages a second; of those that do not fail, where some do."""
        seconds = self.figures.get("seconds")
        healthy = self.figures.get("healthy")
        return healthy / seconds if seconds and healthy else None

    @property
    def cpu_us(self) -> float | None:
        """CPU microseconds of the whole process for each message."""
        cpu, handled = self.figures.get("cpu_seconds"), self.figures.get("healthy")
        return cpu / handled * 1e6 if cpu is not None and handled else None

    def figure(self, name: str) -> float | None:
        """``rate``, ``cpu_us``, or one of the script's."""
        if name in {"rate", "cpu_us"}:
            found: float | None = getattr(self, name)
            return found
        return self.figures.get(name)

    def promised(self, fault: str) -> bool:
        """Whether this fault breaks what the entrant promises."""
        if fault == "order_faults":
            return self.entrant.ordered
        fails = bool(self.figures.get("failures"))
        return not fails or self.entrant.once_done or fault == "repeated"

    @property
    def broken(self) -> list[str]:
        """What went wrong that must not, in words."""
        if self.failure:
            return [self.failure]
        return [
            f"{fault.replace('_', ' ')}: {self.figures[fault]:,}"
            for fault in FAULTS
            if self.figures.get(fault) and self.promised(fault)
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "case": self.case, "entrant": self.entrant.name, "count": self.count,
            "round": self.round, "broken": self.broken, "rate": self.rate, "cpu_us": self.cpu_us,
            **{name: value for name, value in self.figures.items() if name not in {"log", "event"}},
        }  # fmt: skip
