"""Records at a steady rate, whatever the consumers do, so that a pause shows as a gap."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from typing import TYPE_CHECKING

from tests.processes.load import Load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prosody.broker.protocol import Broker
    from tests.processes.fleet import Fleet

TICK_S = 0.005


class Stream:
    """Some keys, drawn evenly, and how often a record of one of them comes."""

    def __init__(self, keys: Sequence[str], rate: float, seed: int = 0) -> None:
        """``rate``: records a second, of all ``keys`` together."""
        self.rate = rate
        chance = random.Random(seed)
        self._keys = (key for _ in itertools.count() for key in chance.sample(keys, len(keys)))
        self._sent = 0

    def due(self, elapsed_s: float) -> list[str]:
        """The keys of what has come due since the last call."""
        count = int(elapsed_s * self.rate) - self._sent
        self._sent += count
        return list(itertools.islice(self._keys, count))


class Steady(Load):
    """Sends the records of its streams when they are due."""

    def __init__(self, broker: Broker, topic: str, fleet: Fleet, *streams: Stream) -> None:
        super().__init__(broker, topic, fleet, {})
        self._streams = streams
        self.sent_at: dict[tuple[str, int], float] = {}
        """By key and number: when it was sent, on the clock of the histories."""

    async def send(self, keys: Sequence[str]) -> None:
        now = time.monotonic()
        number = dict(self.sent)
        for key in keys:
            number[key] = number.get(key, 0) + 1
            self.sent_at[key, number[key]] = now
        await super().send(keys)

    async def _keep_busy(self) -> None:
        began = time.monotonic()
        while not self._ending:
            elapsed_s = time.monotonic() - began
            keys = [key for stream in self._streams for key in stream.due(elapsed_s)]
            if keys:
                await self.send(keys)
            await asyncio.sleep(TICK_S)
