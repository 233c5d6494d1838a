"""Handlers and load for the measurements of quality of service; tests use them too, on virtual time."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prosody.broker.protocol import ProducerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prosody import Context, Message, ProsodyClient
    from prosody.broker.protocol import Broker
    from prosody.runtime import Runtime

QUIET_KEYS = 20
QUIET_PER_S = 10
QUIET_HANDLER_S = 0.003
"""20 keys with 10 messages a second, 3 ms each: 0.6 of 4 permits, 15 %."""


@dataclass(frozen=True)
class Taken:
    """Handler seconds."""

    normal_s: float
    failing_s: float

    @property
    def used_s(self) -> float:
        return self.normal_s + self.failing_s

    @property
    def normal_share(self) -> float:
        return self.normal_s / self.used_s


class Shares:
    """A handler that takes a fixed time, fails where the message says so, and adds up both."""

    def __init__(self, handler_s: float) -> None:
        self._handler_s = handler_s
        self._used = [0.0, 0.0]

    def reset(self) -> None:
        """Count from now on."""
        self._used = [0.0, 0.0]

    def snapshot(self) -> Taken:
        """What was used since."""
        return Taken(self._used[0], self._used[1])

    async def on_message(self, context: Context, message: Message) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        fails = message.payload["fails"]
        try:
            await asyncio.sleep(self._handler_s)
        finally:
            self._used[fails] += clock() - began
        if fails:
            raise ConnectionError("a dependency of this key is down")


def p99(waits: Sequence[float]) -> float:
    """The 99th percentile."""
    return sorted(waits)[int(0.99 * (len(waits) - 1))]


async def noisy_neighbour(
    broker: Broker,
    runtime: Runtime,
    make_client: Callable[[], ProsodyClient],
    topic: str,
    *,
    noise: int,
    seconds: float,
) -> list[float]:
    """How long messages of quiet keys wait for their handler, while one key sends ``noise`` times as many.

    Open loop: messages are sent at their times whatever is handled, and each wait counts from the time at
    which its message was to be sent.
    """
    waits: list[float] = []
    handled = asyncio.Event()
    planned = sorted(
        (n / QUIET_PER_S + key / QUIET_KEYS / QUIET_PER_S, f"quiet {key}")
        for key in range(QUIET_KEYS)
        for n in range(int(seconds * QUIET_PER_S))
    )
    quiet = len(planned)
    planned += [
        (n / (QUIET_PER_S * noise), "noisy") for n in range(int(seconds * QUIET_PER_S * noise))
    ]
    planned.sort()

    class Handler:
        async def on_message(self, context: Context, message: Message) -> None:
            if message.key != "noisy":
                waits.append(runtime.monotonic() - began - message.payload["at"])
                if len(waits) == quiet:
                    handled.set()
            await asyncio.sleep(QUIET_HANDLER_S)

    client = make_client()
    producer = broker.producer(ProducerSettings("load", None, "crc32"))
    await producer.start()
    await client.subscribe(Handler())
    while await client.assigned_partition_count() == 0:  # noqa: ASYNC110  # nobody announces it
        await asyncio.sleep(0.01)
    sends: set[asyncio.Task[Any]] = set()
    began = runtime.monotonic()
    for at, key in planned:
        late_s = began + at - runtime.monotonic()
        if late_s > 0:
            await asyncio.sleep(late_s)
        value = json.dumps({"at": at}).encode()
        sends.add(asyncio.ensure_future(producer.send(topic, key=key.encode(), value=value)))
    await asyncio.gather(*sends)
    async with asyncio.timeout(60.0 + seconds):
        await handled.wait()
    await client.shutdown()
    await producer.stop()
    return waits
