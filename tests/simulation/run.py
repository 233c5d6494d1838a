"""From a seed to a verdict: one run on a loop of its own, with nothing in it but what the seed decides."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.simulation.loop import SimulationLoop
from tests.simulation.order import stable_hashes
from tests.simulation.plan import Plan, plan_of
from tests.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.simulation.history import History


@dataclass(frozen=True)
class Verdict:
    """What came of a run."""

    plan: Plan
    history: History
    faults: tuple[str, ...]
    starts: int
    duplicates: int

    def text(self) -> str:
        """The plan, all that happened, and what was wrong about it."""
        return "\n".join((str(self.plan), self.history.text(), *self.faults))


class _Critical(logging.Handler):
    """Internal faults, as the library reports them, become events."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.CRITICAL)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._world.note("fault", note=f"{record.getMessage()}: {error!r}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No logs but the worst, and no garbage collection: when it comes is nobody's choice."""
    disabled, collects = logging.root.manager.disable, gc.isenabled()
    logging.disable(logging.ERROR)
    gc.disable()
    try:
        yield
    finally:
        logging.disable(disabled)
        if collects:
            gc.enable()


async def _play(world_of: list[World], plan: Plan, make: Callable[[Any], World]) -> None:
    world = make(plan)
    world_of.append(world)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(
        lambda _, context: world.note(
            "fault", note=f"{context['message']}: {context.get('exception')!r}"
        )
    )
    critical = _Critical(world)
    logger = logging.getLogger("prosody")
    logger.addHandler(critical)
    propagate, logger.propagate = logger.propagate, False
    try:
        await world.play()
    finally:
        world.watch.closed = True
        logger.removeHandler(critical)
        logger.propagate = propagate


def simulate(seed: int) -> Verdict:
    """Do the run of a seed."""
    return simulate_plan(plan_of(seed))


def simulate_plan(plan: Plan, make: Callable[[Any], World] = World) -> Verdict:
    """Do the run of a plan, in a world made from it."""
    worlds: list[World] = []
    faults: list[str] = []
    with _quiet(), stable_hashes():
        try:
            with asyncio.Runner(loop_factory=SimulationLoop) as runner:
                runner.run(_play(worlds, plan, make))
        except Exception as error:  # whatever it is, it ends the run, and shows
            where = traceback.extract_tb(error.__traceback__)[-1]
            faults.append(f"the run broke off in {where.name}: {type(error).__name__}: {error}")
    world = worlds[0]
    faults += world.oracle.verdict()
    return Verdict(plan, world.history, tuple(faults), world.oracle.starts, world.oracle.duplicates)
