"""From a seed to a verdict."""

from __future__ import annotations

from tests.simulation.durable.plan import plan_of
from tests.simulation.durable.world import DurableWorld
from tests.simulation.run import Verdict, simulate_plan


def simulate(seed: int) -> Verdict:
    """Do the run of a seed with timers, deferral and deduplication."""
    return simulate_plan(plan_of(seed), DurableWorld)
