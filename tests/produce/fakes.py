"""A broker whose producer starts, sends and fails as the test says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from prosody.broker.protocol import ProducerSettings, SentRecord
from prosody.produce import Producer

if TYPE_CHECKING:
    from prosody.broker.protocol import Broker


class FakeProducer:
    def __init__(self, broker: FakeBroker) -> None:
        self.broker = broker
        self.state = "new"
        self.sent: list[dict[str, Any]] = []

    async def start(self) -> None:
        self.state = "starting"
        self.broker.starts += 1
        if self.broker.start_takes_s:
            await asyncio.sleep(self.broker.start_takes_s)
        if self.broker.start_errors:
            raise self.broker.start_errors.pop(0)
        self.state = "running"

    async def send(self, topic: str, **fields: Any) -> SentRecord:
        assert self.state == "running", f"send on a producer that is {self.state}"
        if self.broker.send_takes_s:
            await asyncio.sleep(self.broker.send_takes_s)
        if self.broker.send_errors:
            raise self.broker.send_errors.pop(0)
        self.sent.append({"topic": topic, **fields})
        return SentRecord(topic, 0, len(self.sent) - 1)

    async def stop(self) -> None:
        self.state = "stopped"


class FakeBroker:
    """Makes :class:`FakeProducer`, and remembers every one."""

    def __init__(self) -> None:
        self.made: list[FakeProducer] = []
        self.starts = 0
        self.start_takes_s = 0.0
        self.send_takes_s = 0.0
        self.start_errors: list[BaseException] = []
        self.send_errors: list[BaseException] = []

    def producer(self, _: ProducerSettings) -> FakeProducer:
        self.made.append(FakeProducer(self))
        return self.made[-1]

    @property
    def sent(self) -> list[dict[str, Any]]:
        return [record for producer in self.made for record in producer.sent]

    @property
    def left_open(self) -> list[str]:
        return [p.state for p in self.made if p.state != "stopped"]


def make_producer(
    broker: FakeBroker, *, send_timeout_s: float | None = 30.0, id_cache_size: int = 0
) -> Producer:
    return Producer(
        cast("Broker", broker),
        ProducerSettings("client", None, "crc32"),
        source_system="here",
        send_timeout_s=send_timeout_s,
        id_cache_size=id_cache_size,
    )
