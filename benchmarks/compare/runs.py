"""One run: a topic that is filled, a process, its figures, and what the broker says afterwards."""

from __future__ import annotations

import sys
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchmarks.compare import rivals as r
from benchmarks.compare import scenes
from benchmarks.compare.child import ChildError
from benchmarks.compare.outcome import Outcome
from benchmarks.compare.records import Work, make
from benchmarks.compare.works import LIVE, REBALANCE, Case, cases
from benchmarks.path.places import kafka_place
from benchmarks.stores.__main__ import drop
from tools.look import LookError

if TYPE_CHECKING:
    from benchmarks.compare.environments import Environments
    from benchmarks.compare.records import Made
    from benchmarks.compare.rivals import Entrant

SLOWEST_RATE = 4000.0
"""Messages a second of the slowest, if the row that measures it is left out."""
CAPACITY_ROW = "b"
LOAD_SHARE = 0.5
WARM_UP = 500
"""Messages."""


@dataclass(frozen=True)
class Filled:
    """A topic with its records."""

    topic: str
    made: Made


class Runner:
    """Runs entrants over one Kafka and one Cassandra."""

    def __init__(self, environments: Environments, kafka: str, cassandra: str) -> None:
        self.environments = environments
        self.place = kafka_place(kafka)
        self.kafka = kafka
        self.cassandra = cassandra
        self.outcomes: list[Outcome] = []
        self._topics: dict[Work, Filled] = {}
        self._run = uuid.uuid4().hex[:8]

    async def filled(self, work: Work) -> Filled:
        """The topic of this work, filled when it is first asked for."""
        found = self._topics.get(work)
        if found is None:
            made = make(work)
            await self.place.fill(made.records)
            # The records are with the broker: a million of them need not stay here.
            self._topics[work] = found = Filled(self.place.topic, replace(made, records=[]))
        self.place.topic = found.topic
        return found

    def job(self, entrant: Entrant, case: Case) -> dict[str, Any]:
        """What every script is told."""
        group = f"bench-compare-{uuid.uuid4().hex[:8]}"
        options = dict(entrant.options)
        if case.work.ids:
            # The copies that earlier groups have seen are not this group's.
            options["idempotence_version"] = group
        return {
            "kafka": self.kafka, "cassandra": self.cassandra, "group": group, "options": options,
            "keyspace": self._keyspace(entrant), "delay_s": case.delay_s,
            "deadline_s": scenes.DEADLINE_S,
            "settle_s": entrant.settle_s, **case.job,
        }  # fmt: skip

    def _keyspace(self, entrant: Entrant) -> str:
        return f"bench_{entrant.rival.replace('-', '_').lower()}_{self._run}"

    async def run(self, case: Case, entrant: Entrant, count: int, number: int) -> Outcome | None:
        """One run; None when the entrant's package is missing."""
        python = self.environments.pythons.get(entrant.rival)
        if python is None:
            return None
        outcome = Outcome(case.key, entrant, count, number)
        try:
            figures = await self._figures(case, entrant, count, python)
        except (ChildError, LookError) as failed:
            outcome = replace(outcome, failure=str(failed))
        else:
            outcome = replace(outcome, count=figures.pop("count", count), figures=figures)
        self.outcomes.append(outcome)
        return outcome

    async def _figures(
        self, case: Case, entrant: Entrant, count: int, python: str
    ) -> dict[str, Any]:
        job = self.job(entrant, case)
        if case.scene == REBALANCE:
            return await scenes.rebalance(self.place, python, entrant, job, case.rate)
        if case.scene == LIVE:
            rate = case.rate or self.half_of_the_slowest()
            return await scenes.live(
                self.place, python, entrant, job, rate, case.seconds, case.hot_rate
            )
        filled = await self.filled(replace(case.work, count=count))
        job |= {"topic": filled.topic}
        return await scenes.backlog(self.place, python, entrant, job, filled.made)

    async def warm_up(self) -> None:
        """Whoever keeps something in Cassandra makes its tables now, and a server that has just started is
        slow: neither is measured."""
        case = Case(
            "", "warm-up", ((r.DEFAULTS, WARM_UP), (r.EVENTS_DEFAULTS, WARM_UP)), Work(0, ids=True)
        )
        for entrant, count in case.entrants:
            await self.run(case, entrant, count, 0)
        self.outcomes.clear()

    def half_of_the_slowest(self) -> float:
        """Half of the least rate at best settings, in the first round, of whoever is in the live row."""
        live = {e.name for case in cases() if case.row == "h" for e, _ in case.entrants}
        rates = [
            rate
            for outcome in self.outcomes
            if outcome.case.startswith(CAPACITY_ROW) and outcome.entrant.name in live
            and outcome.round == 0 and (rate := outcome.rate)
        ]  # fmt: skip
        return LOAD_SHARE * min(rates, default=SLOWEST_RATE)

    def clean(self) -> None:
        """Leave no keyspace behind."""
        names = {
            outcome.entrant.rival: self._keyspace(outcome.entrant) for outcome in self.outcomes
        }
        for rival, keyspace in names.items():
            try:
                drop(self.cassandra, keyspace)
            except Exception as error:  # noqa: BLE001  (the measurements are there; it is only a keyspace)
                print(f"keyspace of {rival} not dropped: {error}", file=sys.stderr)
