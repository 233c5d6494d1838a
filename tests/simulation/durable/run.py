"""From a seed to a verdict."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from prosody.timers import memory
from tests.simulation.durable.plan import plan_of
from tests.simulation.durable.world import DurableWorld
from tests.simulation.run import Verdict, simulate_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = {"LOADED_MAX": 18, "PAGE": 2, "AHEAD_S": 12}
"""How much of the timers is loaded, so that it becomes too little within a run."""


@contextlib.contextmanager
def _little_memory() -> Iterator[None]:
    before = {name: getattr(memory, name) for name in SMALL}
    vars(memory).update(SMALL)
    try:
        yield
    finally:
        vars(memory).update(before)


def simulate(seed: int) -> Verdict:
    """Do the run of a seed with timers, deferral and deduplication."""
    plan = plan_of(seed)
    with _little_memory() if plan.little_memory else contextlib.nullcontext():
        return simulate_plan(plan, DurableWorld)
