"""Records that keep a group busy: as many as it handles, so that a queue is there all the time."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

from prosody.broker.partitioners import partition_for
from prosody.broker.protocol import ProducerSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prosody.broker.protocol import Broker, BrokerProducer
    from tests.processes.fleet import Fleet

SEND_LIMIT_S = 30.0
_LOOK_S = 0.02


def keys_of(partition: int, partitions: int, count: int, prefix: str = "key") -> list[str]:
    """``count`` keys that live in ``partition``."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        key = f"{prefix}-{number}"
        if partition_for("crc32", key.encode(), partitions, random.random) == partition:
            found.append(key)
        number += 1
    return found


class Load:
    """Keeps records of many keys waiting; ``async with`` ends it, with everything acknowledged.

    :param waiting: by key, how many of its records are sent and not handled, all the time. Each key has
        its own: one that stands still takes nothing from the others.
    """

    def __init__(
        self,
        broker: Broker,
        topic: str,
        fleet: Fleet,
        waiting: Mapping[str, int],
        *,
        seed: int = 0,
        send_limit_s: float = SEND_LIMIT_S,
    ) -> None:
        self._producer: BrokerProducer = broker.producer(ProducerSettings("load", None, "crc32"))
        self._topic = topic
        self._fleet = fleet
        self._waiting = waiting
        self._random = random.Random(seed)
        self._send_limit_s = send_limit_s
        self._task: asyncio.Task[None] | None = None
        self._ending = False
        self.sent: Counter[str] = Counter()
        """By key; the records of a key are numbered from 1."""

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        try:
            await self.end()
        finally:
            await self._producer.stop()

    def begin(self) -> None:
        """Send in the background from now on."""
        self._task = asyncio.create_task(self._keep_busy(), name="load")

    async def end(self) -> None:
        """Send no more; what was sent is acknowledged when this returns. Raises what a send raised."""
        self._ending = True
        task, self._task = self._task, None
        if task is not None:
            async with asyncio.timeout(2 * self._send_limit_s):
                await task

    async def until_handled(self) -> None:
        """Wait until every record sent was handled by somebody."""
        await self._fleet.until(lambda: self.unhandled() == 0, "every record was handled")

    def unhandled(self) -> int:
        """Records sent and handled by nobody yet, as far as each key's highest number tells."""
        done = self._fleet.handled_of()
        return sum(count - done[key] for key, count in self.sent.items())

    async def send(self, keys: Sequence[str], **more: Any) -> None:
        """One record for each of ``keys``, in this order; ``more`` is for its handler."""
        sends = []
        for key in keys:
            self.sent[key] += 1
            sends.append(self._send(key, {"seq": self.sent[key], **more}))
        await asyncio.gather(*sends)

    async def _send(self, key: str, value: Any) -> None:
        await self._producer.send(
            self._topic,
            key=key.encode(),
            value=json.dumps(value).encode(),
            timeout_s=self._send_limit_s,
        )

    async def _keep_busy(self) -> None:
        while not self._ending:
            done = self._fleet.handled_of()
            keys = [
                key
                for key, count in self._waiting.items()
                for _ in range(count - (self.sent[key] - done[key]))
            ]
            self._random.shuffle(keys)
            if keys:
                await self.send(keys)
            await asyncio.sleep(_LOOK_S)
