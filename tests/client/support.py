"""A place where clients live (one of the two brokers), and handlers that remember."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from prosody import Context, Message, ProsodyClient
from prosody.broker.memory import MemoryBroker, MemoryCluster
from prosody.broker.protocol import Broker, ProducerSettings, TopicPartition
from prosody.config import Config
from prosody.runtime import Runtime, SystemRuntime
from tests.support import FakeRuntime, other_tasks, run_virtual
from tools.look import KafkaLook, Look, LookError, MemoryLook, uncommitted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

DEADLINE_S = 30.0
_numbers = itertools.count(1)


def unique(prefix: str) -> str:
    """A name no other test uses, on a broker that outlives tests."""
    return f"{prefix}-{os.getpid()}-{next(_numbers)}"


class Place:
    """A broker, and what tests do on it besides being a client."""

    def __init__(
        self,
        broker: Broker,
        look: Callable[[str, str], Look],
        *,
        mock: bool,
        runtime: Runtime | None = None,
    ) -> None:
        self.broker = broker
        self.look = look
        """Makes an independent look at a topic and group."""
        self.mock = mock
        self.runtime = runtime or SystemRuntime()
        self.topic = unique("orders")
        self.group = unique("service")
        self._clients: list[ProsodyClient] = []
        self._looking: Look | None = None

    @property
    def cluster(self) -> MemoryCluster:
        """The embedded cluster; only where that is the broker."""
        assert isinstance(self.broker, MemoryBroker)
        return self.broker.cluster

    async def create_topic(
        self,
        name: str | None = None,
        partitions: int = 4,
        config: Mapping[str, str] | None = None,
    ) -> str:
        name = name or self.topic
        admin = self.broker.admin()
        try:
            await admin.create_topic(name, partitions=partitions, config=config)
        finally:
            await admin.stop()
        return name

    def client(self, **options: Any) -> ProsodyClient:
        """A client of this place's group and topic, in best-effort mode unless said otherwise."""
        values: dict[str, Any] = {
            "group_id": self.group,
            "subscribed_topics": self.topic,
            "source_system": "tests",
            "mode": "best-effort",
            "send_timeout": 20.0,
            "commit_interval": 0.05,
            "shutdown_timeout": 5.0,
            "session_timeout": 10.0,
            "bootstrap_servers": "unused:9092",
            "mock": self.mock,
            "telemetry_enabled": False,
            "probe_port": None,
            **options,
        }
        client = ProsodyClient.from_parts(Config.load(values, {}), self.broker, self.runtime)
        self._clients.append(client)
        return client

    async def put(
        self,
        value: Any,
        *,
        key: bytes | None = b"k",
        headers: tuple[tuple[str, bytes | None], ...] = (),
        topic: str | None = None,
    ) -> None:
        """Write one raw record: bytes and None as they are, anything else as JSON."""
        if value is not None and not isinstance(value, bytes):
            value = json.dumps(value).encode()
        producer = self.broker.producer(ProducerSettings("raw", None, "crc32"))
        await producer.start()
        try:
            await producer.send(
                topic or self.topic, key=key, value=value, headers=headers, timeout_s=DEADLINE_S
            )
        finally:
            await producer.stop()

    async def put_many(self, records: list[tuple[bytes, Any]]) -> None:
        """Write JSON records concurrently, in this order for each partition."""
        producer = self.broker.producer(ProducerSettings("raw", None, "crc32"))
        await producer.start()
        try:
            await asyncio.gather(
                *(
                    producer.send(
                        self.topic, key=key, value=json.dumps(value).encode(), timeout_s=DEADLINE_S
                    )
                    for key, value in records
                )
            )
        finally:
            await producer.stop()

    async def lag(self) -> int:
        """How many records of the topic the group has not committed."""
        return uncommitted(await (await self._look()).offsets())

    async def note(self, partition: int = 0) -> str:
        """The metadata of the last commit; empty before the first."""
        look = await self._look()
        if isinstance(look, KafkaLook):
            return (await look.committed())[partition].metadata
        kept = self.cluster.group(self.group).committed.get(TopicPartition(self.topic, partition))
        return "" if kept is None else kept.metadata

    async def _look(self) -> Look:
        if self._looking is None:
            self._looking = self.look(self.topic, self.group)
            await self._looking.start()
        return self._looking

    async def nothing_left(self) -> None:
        """Wait until the group has committed everything the topic holds."""

        async def look() -> bool:
            try:
                return await self.lag() == 0
            except LookError:
                return False  # a young Kafka has no coordinator for a group yet

        await eventually(look, "everything should be committed")

    async def close(self) -> None:
        for client in self._clients:
            await client.shutdown()
        if self._looking is not None:
            await self._looking.stop()


def run_simulated(main: Callable[[Place], Awaitable[None]]) -> None:
    """Run ``main`` with a place in an embedded cluster where time jumps; it must leave no task behind."""

    async def run() -> None:
        runtime = FakeRuntime()
        cluster = MemoryCluster()
        broker = MemoryBroker(cluster, runtime=runtime, auto_create_topics=False)
        place = Place(
            broker,
            lambda topic, group: MemoryLook(cluster, topic, group),
            mock=True,
            runtime=runtime,
        )
        try:
            await main(place)
        finally:
            await place.close()
        assert not other_tasks(), f"tasks left behind: {other_tasks()}"

    run_virtual(run())


class Recorder:
    """Remembers what it handled, and faults no handler should ever see."""

    def __init__(self, behave: Callable[[Context, Message], Awaitable[None]] | None = None) -> None:
        self.behave = behave
        self.handled: list[Message] = []
        self.attempts: list[Message] = []
        self.running: dict[str, int] = defaultdict(int)
        self.overlaps = 0
        self.most_running = 0
        self._changed = asyncio.Event()

    async def on_message(self, context: Context, message: Message) -> None:
        self.attempts.append(message)
        self.running[message.key] += 1
        if self.running[message.key] > 1:
            self.overlaps += 1
        self.most_running = max(self.most_running, sum(self.running.values()))
        self._changed.set()
        try:
            if self.behave is not None:
                await self.behave(context, message)
            self.handled.append(message)
        finally:
            self.running[message.key] -= 1
            self._changed.set()

    async def until(self, condition: Callable[[Recorder], bool]) -> None:
        """Wait for what an attempt begins or ends with."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def until_handled(self, count: int) -> None:
        await self.until(lambda r: len(r.handled) >= count)

    def by_key(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = defaultdict(list)
        for message in self.handled:
            found[message.key].append(message.payload)
        return dict(found)


async def eventually(look: Callable[[], Awaitable[bool]], what: str) -> None:
    """Look again and again: for what a broker knows and nobody announces."""
    async with asyncio.timeout(DEADLINE_S):
        while not await look():  # noqa: ASYNC110  # nobody announces it
            await asyncio.sleep(0.02)
    assert await look(), what
