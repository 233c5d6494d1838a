"""Sends each message at its time, whatever is handled."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prosody.broker.protocol import ProducerSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.compare.records import Planned
    from benchmarks.path.places import Place

LEAD_S = 0.2
TICK_S = 0.0005
"""What is due this soon is sent at once: a timer would come later."""


@contextmanager
def no_collections() -> Iterator[None]:
    """A full garbage collection of this process would make everything late for 50 ms, and count as the
    latency of whoever is measured: the p99 of some seconds is made of one such pause."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Sender:
    """Of a live row."""

    def __init__(self, place: Place, planned: Sequence[Planned]) -> None:
        self._place = place
        self._topic = place.topic
        self._planned = planned
        self.sent = 0
        self.over = False
        """Set from outside: nothing more is to be sent."""
        self.lateness_s = 0.0
        """The longest time by which this process was late itself."""

    async def run(self) -> None:
        """Until everything is sent, or it is over."""
        with no_collections():
            await self._run()

    async def _run(self) -> None:
        place = self._place
        producer = place.broker.producer(ProducerSettings("bench", None, "crc32"))
        await producer.start()
        sends: set[asyncio.Task[Any]] = set()
        try:
            began_at = time.monotonic() + LEAD_S
            for each in self._planned:
                left_s = began_at + each.after_s - time.monotonic()
                if left_s > TICK_S:
                    await asyncio.sleep(left_s)
                if self.over:
                    break
                self.lateness_s = max(self.lateness_s, -left_s)
                key, value = each.record(began_at)
                send = asyncio.create_task(
                    producer.send(
                        self._topic, key=key, value=value, headers=place.headers, timeout_s=60.0
                    )
                )
                sends.add(send)
                self.sent += 1
            await asyncio.gather(*sends)
        finally:
            await producer.stop()
