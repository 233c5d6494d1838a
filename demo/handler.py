"""The order service: what a user of prosody writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from demo.history import History
from prosody import Context, EventHandler, Message


class StockService:
    """A pretended dependency of the handler. For one key it goes down once, and comes back by itself.

    The outage begins with the first call for order ``from_seq`` of that key, so every run meets it.
    """

    def __init__(
        self, failing_key: str, from_seq: int, outage_s: float, clock: Callable[[], float]
    ) -> None:
        self._failing_key = failing_key
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
        if key != self._failing_key or seq < self._from_seq:
            return
        if self._down_until is None:
            self._down_until = self._clock() + self._outage_s
        if self._clock() < self._down_until:
            raise ConnectionError(f"stock service does not answer for {key}")


class OrderHandler(EventHandler):
    """Works an order off in a few milliseconds, and writes down when it began and ended.

    It holds no lock and looks after no sequence: both are the library's work, and what it wrote down
    is checked afterwards.
    """

    def __init__(self, history: History, stock: StockService) -> None:
        self._history = history
        self._stock = stock

    async def on_message(self, context: Context, message: Message) -> None:
        key, order = message.key, message.payload
        seq = order["seq"]
        self._history.begin(key, seq)
        try:
            await asyncio.sleep(order["work_ms"] / 1000)
            # Any exception but a PermanentError means: try this message again, and keep its place.
            self._stock.reserve(key, seq)
        except BaseException:
            self._history.has_failed(key, seq)
            raise
        self._history.was_handled(key, seq)
