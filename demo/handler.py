"""The order service: what a user of prosody writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from demo.history import History
from demo.settings import FAILING_KEYS
from prosody import Context, EventHandler, Message, Timer

_REMIND_S = 0.001
"""How long sending a reminder takes."""


class StockService:
    """A pretended dependency of the handler. For some keys it goes down once, and comes back by itself.

    The outage begins with the first call for order ``from_seq`` of one of them, so every run meets it.
    """

    def __init__(self, from_seq: int, outage_s: float, clock: Callable[[], float]) -> None:
        self._from_seq = from_seq
        self._outage_s = outage_s
        self._clock = clock
        self._down_until: float | None = None

    @property
    def state(self) -> str:
        """``not yet``, ``down`` or ``back``."""
        if self._down_until is None:
            return "not yet"
        return "down" if self._clock() < self._down_until else "back"

    def reserve(self, key: str, seq: int) -> None:
        """Reserve the goods of an order.

        :raises ConnectionError: the service is down for this key.
        """
        if key not in FAILING_KEYS:
            return
        if self._down_until is None and seq >= self._from_seq:
            self._down_until = self._clock() + self._outage_s
        if self.state == "down":
            raise ConnectionError(f"stock service does not answer for {key}")


class OrderHandler(EventHandler):
    """Works an order off in a few milliseconds, and writes down when it began and ended.

    It holds no lock, looks after no sequence, remembers no ids and no reminders: all of that is the
    library's work, and what it wrote down is checked afterwards.
    """

    def __init__(self, history: History, stock: StockService) -> None:
        self._history = history
        self._stock = stock

    async def on_message(self, context: Context, message: Message) -> None:
        key, order = message.key, message.payload
        seq = order["seq"]
        self._history.begin(key, seq, message.partition, message.offset)
        try:
            await asyncio.sleep(order["work_ms"] / 1000)
            # Any exception but a PermanentError means: try this message again, and keep its place.
            self._stock.reserve(key, seq)
            if "reminder" in order:
                await self._remind(context, key, order)
        except BaseException:
            self._history.has_failed(key, seq)
            raise
        self._history.was_handled(key, seq)

    async def _remind(self, context: Context, key: str, order: dict[str, Any]) -> None:
        """Set, move or cancel reminders of the customer, and note what holds when the call has returned."""
        time = _whole_second(datetime.now(UTC) + timedelta(seconds=order["after_s"]))
        match order["reminder"]:
            case "set":
                self._history.timer_asked(key, time)
                await context.schedule(time)
                self._history.timer_set(key, time)
            case "move":
                self._history.timer_asked(key, time)
                await context.clear_and_schedule(time)
                self._history.timers_cleared(key, but=time)
                self._history.timer_set(key, time)
            case "cancel":
                for first in (await context.scheduled())[:1]:
                    await context.unschedule(first)
                    self._history.timer_cancelled(key, first)
            case "cancel_all":
                await context.clear_scheduled()
                self._history.timers_cleared(key)

    async def on_timer(self, context: Context, timer: Timer) -> None:
        self._history.timer_begins(timer.key, timer.time)
        try:
            await asyncio.sleep(_REMIND_S)
        except BaseException:
            self._history.timer_has_failed(timer.key, timer.time)
            raise
        self._history.timer_fired(timer.key, timer.time)


def _whole_second(time: datetime) -> datetime:
    """The second a timer is set for when it is asked for at ``time``: the nearest."""
    return (time + timedelta(seconds=0.5)).replace(microsecond=0)
