"""From a seed to a verdict."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from prosody.stores.memory import MemoryStores
from prosody.timers import memory
from tests.simulation.durable.plan import DurablePlan, plan_of
from tests.simulation.durable.world import DurableWorld
from tests.simulation.run import Verdict, simulate_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = {"LOADED_MAX": 18, "PAGE": 2, "AHEAD_S": 12}
"""How much of the timers is loaded, so that it becomes too little within a run."""


@contextlib.contextmanager
def _as_planned(plan: DurablePlan) -> Iterator[None]:
    """What no option says: how much is kept in memory, and that the store keeps no records."""
    before = {name: getattr(memory, name) for name in SMALL}
    keeps = MemoryStores.keeps_records
    if plan.little_memory:
        vars(memory).update(SMALL)
    if not plan.keeps_content:
        vars_of: Any = MemoryStores
        vars_of.keeps_records = False
    try:
        yield
    finally:
        vars(memory).update(before)
        MemoryStores.keeps_records = keeps  # type: ignore[method-assign]


def simulate(seed: int) -> Verdict:
    """Do the run of a seed with timers, deferral and deduplication."""
    plan = plan_of(seed)
    with _as_planned(plan):
        return simulate_plan(plan, DurableWorld)
