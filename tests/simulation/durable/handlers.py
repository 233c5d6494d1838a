"""The handlers of a simulated program that sets, moves and cancels timers, and fails for a while."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from prosody.errors import PermanentError, StoreError
from tests.simulation.handlers import STARTS_MAX, behave
from tests.simulation.members import Shop
from tests.support import WALL_AT_START_S

if TYPE_CHECKING:
    from prosody import Context, Message, Timer
    from prosody.broker.protocol import TopicPartition
    from tests.simulation.durable.plan import DurablePlan
    from tests.simulation.watch import Watch

BEGINNING = datetime.fromtimestamp(WALL_AT_START_S, UTC)
GOOD = ("quick", "quick", "turn", "short")
BAD = ("transient", "transient late", "permanent", "raise cancelled", "for ever", "until told")
CALLS = ("schedule",) * 5 + ("unschedule", "clear", "move", "scheduled", "scheduled")
FROM_NOW_S = (-5, 0, 0, 1, 2, 2, 5, 15, 40)
"""When timers are set for, seen from the present second."""
AGAIN = 0.4
"""Of the timers that fire so many do something about timers, compared with messages; so they die out."""


def due_of(time: datetime) -> int:
    """A timer's time in seconds since the beginning."""
    return round((time - BEGINNING).total_seconds())


def time_of(due: int) -> datetime:
    """The reverse."""
    return BEGINNING + timedelta(seconds=due)


class DurableShop(Shop):
    """What all handlers of a run share."""

    plan: DurablePlan
    has_stores = True

    def __init__(self, plan: DurablePlan, watch: Watch) -> None:
        super().__init__(plan, watch)
        self.calls: Counter[tuple[Any, ...]] = Counter()
        """How often each event was begun."""
        self.dues: defaultdict[tuple[TopicPartition, str], dict[int, None]] = defaultdict(dict)
        """For when timers of a key were ever set."""

    def handler(self, name: str) -> DurableHandler:
        return DurableHandler(name, self)


class DurableHandler:
    """The user's handler in one member."""

    def __init__(self, name: str, shop: DurableShop) -> None:
        self._name = name
        self._shop = shop

    async def on_message(self, context: Context, message: Message) -> Any:
        tp = _partition(context).topic_partition
        same = {"offset": message.offset, "seq": self._shop.seqs[tp, message.offset]}
        return await self._handle(context, message, ("start", "end"), message.offset, same)

    async def on_timer(self, context: Context, timer: Timer) -> Any:
        due = due_of(timer.time)
        return await self._handle(context, timer, ("fires", "fired"), f"due {due}", {"due": due})

    async def _handle(
        self,
        context: Context,
        event: Message | Timer,
        names: tuple[str, str],
        which: int | str,
        fields: dict[str, Any],
    ) -> Any:
        shop, watch = self._shop, self._shop.watch
        partition = _partition(context)
        tp = partition.topic_partition
        same = {"tp": tp, "key": event.key, "epoch": partition.epoch, **fields}
        begun = shop.calls[tp, event.key, which]
        shop.calls[tp, event.key, which] += 1
        chance = random.Random(f"{shop.plan.seed} {tp} {event.key} {which} {begun}")
        how, delay_s = self._choose(chance, event.key, begun)
        held = watch.holds(self._name, tp)
        number = partition.uncommitted
        watch.write(watch.event(names[0], self._name, **same, number=number, held=held, note=how))
        verdict = "transient"
        try:
            if not shop.quick:
                share = shop.plan.timers * (1.0 if names[0] == "start" else AGAIN)
                while chance.random() < share:
                    await self._about_timers(chance, context, event.key)
                    share /= 2
            result = await behave(how, delay_s, context, event, shop.over)
        except PermanentError:
            verdict = "permanent"
            raise
        else:
            verdict = "success"
            return result
        finally:
            if verdict == "transient" and partition.cancelling:
                verdict = "stopped"
            watch.write(watch.event(names[1], self._name, **same, note=verdict))

    def _choose(self, chance: random.Random, key: str, begun: int) -> tuple[str, float]:
        """What the handler does, and for how long; by the event, and whether its key fails just now."""
        plan = self._shop.plan
        draw, delay_s = chance.random(), chance.choice((0.0, 0.05, 1.0))
        if self._shop.quick:
            return "quick", 0.0
        if plan.fails(key, asyncio.get_running_loop().time()):
            return chance.choice(("transient", "transient", "transient late")), delay_s
        if begun < STARTS_MAX:
            if draw < plan.bad:
                bad = BAD if not plan.zombies else (*BAD, "stubborn")
                return chance.choice(bad), delay_s
            if draw < plan.bad + plan.slow:
                return "slow", chance.uniform(0.5, 6.0)
        return chance.choice(GOOD), chance.uniform(0.0, 0.3)

    async def _about_timers(self, chance: random.Random, context: Context, key: str) -> None:
        """One call of the context about timers, written down; it may fail as the user sees it fail."""
        partition = _partition(context)
        dues = self._shop.dues[partition.topic_partition, key]
        call = chance.choice(CALLS)
        due = int(asyncio.get_running_loop().time()) + chance.choice(FROM_NOW_S)
        if dues and (call == "unschedule" or chance.random() < 0.2):
            due = chance.choice(list(dues))
        same = {"tp": partition.topic_partition, "key": key, "epoch": partition.epoch}
        if call in {"schedule", "unschedule", "move"}:
            same["due"] = due
        watch = self._shop.watch
        watch.write(watch.event("calls", self._name, **same, note=call))
        said, listed = f"{call} failed", ""
        try:
            match call:
                case "schedule":
                    dues[due] = None
                    await context.schedule(time_of(due))
                case "unschedule":
                    await context.unschedule(time_of(due))
                case "clear":
                    await context.clear_scheduled()
                case "move":
                    dues[due] = None
                    await context.clear_and_schedule(time_of(due))
                case "scheduled":
                    times = await context.scheduled()
                    listed = "".join(f" {due_of(time)}" for time in times)
            said = f"{call} ok{listed}"
        except StoreError:
            if chance.random() < 0.5:
                raise  # half of the programs do without
        finally:
            watch.write(watch.event("called", self._name, **same, note=said))


def _partition(context: Context) -> Any:
    return context._run.partition
