"""A consumer of aiokafka with a connection to a broker that the test plays, and a poll that waits."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from aiokafka.client import ConnectionGroup
from aiokafka.protocol.fetch import FetchRequest

from prosody.broker.kafka.polls import Polls
from prosody.broker.protocol import TopicPartition
from tests.broker.kafka.chained import answer_of
from tests.broker.kafka.fetched import Fetched
from tests.broker.kafka.line import Line, frame, turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from prosody.broker.protocol import Receiver, Record

NODE = 1
T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


def end_of(task: asyncio.Task[Any]) -> Any:
    """What a task has ended with."""
    assert task.done(), "it goes on"
    return task.result()


class Eager:
    """Takes records of all partitions, until it is told not to."""

    def __init__(self, written: list[bytes]) -> None:
        self.wanted: set[TopicPartition] | None = None
        self.taken: list[tuple[TopicPartition, list[int]]] = []
        self.sent: list[int] = []
        """Requests that had been written when it was handed each of ``taken``."""
        self.begun: list[int] = []
        """How many of ``taken`` there were each time that it was told to begin."""
        self._written = written

    def wants(self, partition: TopicPartition) -> Receiver | None:
        wanted = self.wanted is None or partition in self.wanted
        return self.receiver(partition) if wanted else None

    def receiver(self, partition: TopicPartition) -> Receiver:
        """Whether it is wanted or not."""
        return One(self, partition)

    def take(self, brought: Sequence[tuple[Receiver, Sequence[Record]]]) -> None:
        for receiver, records in brought:
            receiver.receive(records)
        self.begun.append(len(self.taken))

    def receive(self, partition: TopicPartition, records: Sequence[Record]) -> None:
        self.taken.append((partition, [record.offset for record in records]))
        self.sent.append(len(self._written))


class One:
    """Takes those of one partition."""

    def __init__(self, eager: Eager, partition: TopicPartition) -> None:
        self._eager = eager
        self._partition = partition

    def receive(self, records: Sequence[Record]) -> None:
        self._eager.receive(self._partition, records)


class Consumer(Fetched):
    """Two partitions on one broker, to which there is a connection."""

    def __init__(self) -> None:
        super().__init__(2)
        self.line = Line()
        self.asked = 0
        """Fetches that aiokafka has sent by itself."""
        self.listeners: list[Callable[[object], None]] = []
        answer = self.client.send

        async def send(node_id: int, request: Any) -> Any:
            self.asked += 1
            return await answer(node_id, request)

        async def ready(node_id: int) -> bool:
            return (node_id, ConnectionGroup.DEFAULT) in self.client._conns

        self.client.send, self.client.ready = send, ready
        self.client._conns = {(NODE, ConnectionGroup.DEFAULT): self.line.connection}
        self.client.cluster.add_listener = self.listeners.append
        # Once more, now that the client has all that is used of it.
        self.fetcher._client = self.client
        del self.fetcher._proc_fetch_request
        self.polls = Polls(self.consumer, self.runtime)
        self.fetches: Any = self.polls._buffers.fetches
        self.written = self.line.ears.written
        self.taker = Eager(self.written)
        self.tasks: list[asyncio.Task[Any]] = []

    @property
    def lower_assignment(self) -> Any:
        return self.subscription.subscription.assignment

    async def begin(self, *partitions: int) -> asyncio.Task[bool]:
        """Fetch as aiokafka's routine does: these partitions, or all."""
        wanted = [(n, self.position(n), 1000) for n in partitions or (0, 1)]
        request = FetchRequest(1, 1, 1, 1, [("t", wanted)], "")
        task = asyncio.create_task(
            self.fetcher._proc_fetch_request(self.lower_assignment, NODE, request)
        )
        self.tasks.append(task)
        await turns()
        return task

    async def wait(self, taker: Eager | None) -> asyncio.Task[Any]:
        """A poll that finds nothing."""
        task = asyncio.create_task(
            self.polls.poll(self.assignment, (T0, T1), 1000, 60.0, taker=taker)
        )
        self.tasks.append(task)
        await turns()
        return task

    def answer(self, *parts: tuple[int, bytes], error: int = 0) -> None:
        answer = answer_of(*((self.lower[n], data) for n, data in parts), error=error)
        self.line.feed(frame(self.line.number, answer[4:]))

    def buffered(self) -> list[int]:
        return [tp.partition for tp in self.fetcher._records]


@contextlib.asynccontextmanager
async def consuming() -> AsyncIterator[Consumer]:
    consumer = Consumer()
    try:
        yield consumer
    finally:
        for task in consumer.tasks:
            task.cancel()
        consumer.line.close()
        await turns()
        consumer.close()
