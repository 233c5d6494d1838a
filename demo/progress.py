"""The live display: what is gathered for it, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from demo.durable import Sight
from demo.handler import StockService
from demo.history import History
from demo.measure import Latency, latency
from demo.settings import FAILING_KEYS, HOT_KEY, LOOK_EVERY_S
from tools.look import Look, LookError, Offsets


class Snapshot(NamedTuple):
    """Everything a display shows at a moment."""

    seconds: float
    total: int
    sent: int
    handled: int
    per_s: float
    """Orders handled per second, over the last second or so."""
    running: int
    failed: int
    lag: int | None
    """High watermark minus committed offset, of all partitions; None while the broker does not say."""
    hot_waiting: int
    failing_waiting: int
    stock: str
    """State of the failing keys' dependency: ``not yet``, ``down`` or ``back``."""
    others_waiting: int
    others_latency: Latency | None
    """Of the orders handled since the last snapshot."""
    timers_waiting: int
    timers_fired: int
    copies: int
    """Orders sent a second time."""


class View(Protocol):
    """A display."""

    every_s: float
    """How often it wants a snapshot."""

    def show(self, snapshot: Snapshot) -> None:
        """Show how things stand."""
        ...


class Watcher:
    """Takes snapshots of a run and shows them."""

    def __init__(
        self, history: History, stock: StockService, look: Look, view: View, total: int
    ) -> None:
        self._history = history
        self._stock = stock
        self._look = look
        self._view = view
        self._total = total
        self.lag: int | None = None
        """High watermark minus committed offset, of all partitions, when the broker was asked last."""
        self.sights: list[Sight] = []
        """What was committed, each time the broker was asked."""
        self._began = history.clock()
        self._rates: list[tuple[float, int]] = []
        self.hot_queue_max = 0

    async def watch(self) -> None:
        """Show a snapshot every now and then, and a last one when cancelled."""
        self._began = self._history.clock()
        asking = asyncio.create_task(self._follow_lag())
        try:
            while True:
                self._view.show(self.snapshot())
                await asyncio.sleep(self._view.every_s)
        finally:
            asking.cancel()
            # After it has ended, or its answer on the way could undo a newer one.
            await asyncio.gather(asking, return_exceptions=True)
            self._view.show(self.snapshot())

    async def _follow_lag(self) -> None:
        """Ask in a task of its own: a broker that answers late must not hold up the display."""
        while True:
            try:
                self.saw(await self._look.offsets())
            except LookError:
                # Only the display misses it; the look that counts comes at the end, and raises.
                self.lag = None
            await asyncio.sleep(LOOK_EVERY_S)

    def saw(self, offsets: Mapping[int, Offsets]) -> None:
        """The broker has said its offsets just now."""
        # Noted when the answer is here: what is handled later was not handled when it was committed.
        committed = {number: o.committed for number, o in offsets.items()}
        self.sights.append((self._history.clock(), committed))
        self.lag = sum(o.end - o.committed for o in offsets.values())

    def snapshot(self) -> Snapshot:
        """How things stand now."""
        history = self._history
        now = history.clock()
        fresh, history.fresh_latencies = history.fresh_latencies, []
        waiting = history.waiting
        hot, failing = waiting[HOT_KEY], sum(waiting[key] for key in FAILING_KEYS)
        self.hot_queue_max = max(self.hot_queue_max, hot)
        return Snapshot(
            seconds=now - self._began,
            total=self._total,
            sent=history.sent,
            handled=history.handled,
            per_s=self._rate(now),
            running=history.running,
            failed=history.failed,
            lag=self.lag,
            hot_waiting=hot,
            failing_waiting=failing,
            stock=self._stock.state,
            others_waiting=sum(waiting.values()) - hot - failing,
            others_latency=latency(
                [s for key, s in fresh if key != HOT_KEY and key not in FAILING_KEYS]
            ),
            timers_waiting=history.timers_waiting,
            timers_fired=history.fired,
            copies=history.copies,
        )

    def _rate(self, now: float) -> float:
        self._rates.append((now, self._history.handled))
        while len(self._rates) > 2 and now - self._rates[1][0] >= 1.0:
            del self._rates[0]
        then, before = self._rates[0]
        return (self._history.handled - before) / (now - then) if now > then else 0.0
