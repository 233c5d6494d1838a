"""The handlers of a simulated program: quick, slow, failing, and badly behaved ones."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from prosody.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from prosody import Context, Message, Timer
    from tests.simulation.plan import Plan

STARTS_MAX = 4
"""A record that was begun so often is handled well from then on."""
STUBBORN_S = 30.0
"""How long a handler at most goes on that takes no notice of its cancellation."""


class OutsideError(BaseException):
    """Not even an ``Exception``."""


GOOD = ("quick", "turn", "short")
SLOW = ("slow", "slower")
BAD = (
    "transient", "transient late", "permanent", "base", "exit", "cancel self", "raise cancelled",
    "cancelled child", "for ever", "until told", "garbage",
)  # fmt: skip
STUBBORN = ("stubborn", "stubborn failure")


def choose(plan: Plan, topic: str, partition: int, offset: int, starts: int) -> tuple[str, float]:
    """What the handler does the ``starts``-th time that a record is begun, and for how long.

    It depends on the record alone, not on what else happened in the run.
    """
    chance = random.Random(f"{plan.seed} {topic} {partition} {offset} {starts}")
    if starts >= STARTS_MAX:
        return "quick", 0.0
    draw = chance.random()
    if draw < plan.bad:
        bad = BAD if plan.graceful else BAD + STUBBORN
        return chance.choice(bad), chance.choice((0.0, 0.05, 1.0))
    if draw < plan.bad + plan.slow:
        return chance.choice(SLOW), chance.uniform(0.5, 6.0)
    return chance.choice(GOOD), chance.uniform(0.0, 0.3)


async def behave(  # noqa: C901  # a list, though it is written as a match
    how: str,
    delay_s: float,
    context: Context,
    event: Message | Timer,
    over: Callable[[], bool],
) -> Any:
    """Do as chosen; returns or raises as a user's handler would."""
    task = asyncio.current_task()
    assert task is not None
    match how:
        case "quick":
            return None
        case "turn":
            await asyncio.sleep(0)
        case "short" | "slow":
            await asyncio.sleep(delay_s)
        case "slower":
            await asyncio.sleep(3 * delay_s)
        case "transient":
            raise ValueError("a transient failure")
        case "transient late":
            await asyncio.sleep(delay_s)
            raise ValueError("a transient failure")
        case "permanent":
            await asyncio.sleep(delay_s)
            raise PermanentError("a permanent failure")
        case "base":
            raise OutsideError
        case "exit":
            raise SystemExit(3)
        case "cancel self":
            task.cancel()
            await asyncio.sleep(0)
        case "raise cancelled":
            raise asyncio.CancelledError
        case "cancelled child":
            child = asyncio.create_task(asyncio.sleep(1))
            child.cancel()
            await child
        case "for ever":
            await asyncio.get_running_loop().create_future()
        case "until told":
            # The cancellation comes at the same moment, and is taken for what it is: an order to stop.
            try:
                await context.on_cancel()
            except asyncio.CancelledError:
                return None
        case "garbage":
            return {"not": "looked at"}
        case "stubborn" | "stubborn failure":
            which = getattr(event, "offset", 0)  # a timer has none
            await _stubborn(2 + STUBBORN_S * (which % 7) / 7, over)
            if how == "stubborn failure":
                raise ValueError("a transient failure")
    return None


async def _stubborn(delay_s: float, over: Callable[[], bool]) -> None:
    loop = asyncio.get_running_loop()
    until_s = loop.time() + delay_s
    while loop.time() < until_s and not over():
        try:
            await asyncio.sleep(until_s - loop.time())
        except asyncio.CancelledError:
            # The bad manners that this handler is here for.
            continue
