"""A chain of fetches without a broker: what it sends and what it brings are kept."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.fetch import FetchRequest, FetchResponse_v11
from aiokafka.structs import TopicPartition as LowerPartition

from prosody.broker.kafka.chain import Chain
from tests.broker.kafka.line import VERSIONS, turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from prosody.broker.kafka.chain import Answered, Part

A, B, C = LowerPartition("first", 0), LowerPartition("first", 7), LowerPartition("zwölf", 0)
OTHER, FAR = LowerPartition("first", 2), LowerPartition("first", 3)
"""On the same broker, but not fetched; on another one."""
STEP = 10
"""What is taken moves the position by this."""
END, STABLE = 100, 90


def fetch_of(offsets: dict[LowerPartition, int]) -> FetchRequest:
    topics: dict[str, list[tuple[int, int, int]]] = {}
    for tp, offset in offsets.items():
        topics.setdefault(tp.topic, []).append((tp.partition, offset, 1000 + tp.partition))
    return FetchRequest(500, 1, 10_000, 1, list(topics.items()))


def bytes_of(request: FetchRequest) -> bytes:
    """As aiokafka's connection sends it, as its request 0."""
    struct_ = request.prepare(VERSIONS)
    header = struct_.build_request_header(correlation_id=0, client_id="me")
    message = bytes(header.encode() + struct_.encode())
    return struct.pack(">i", len(message)) + message


def answer_of(
    *parts: tuple[LowerPartition, bytes], error: int = 0, aborted: Sequence[Any] = ()
) -> bytes:
    """An answer without its size; ``error`` is that of each partition."""
    topics: dict[str, list[Any]] = {}
    for tp, data in parts:
        topics.setdefault(tp.topic, []).append(
            (tp.partition, error, END, STABLE, 0, list(aborted), -1, data)
        )
    return bytes(4) + bytes(FetchResponse_v11(0, 0, 0, list(topics.items())).encode())


EMPTY = answer_of((A, b""), (B, b""), (C, b""))


class Wire:
    """Instead of ``Frames``: keeps what is sent."""

    def __init__(self, log: list[str]) -> None:
        self.sent: list[bytes] = []
        self.received_at = 0.0
        self.open = True
        self.closed: list[Any] = []
        self.connection = SimpleNamespace(
            _versions=VERSIONS, _client_id="me", _request_timeout=40.0, close=self._close
        )
        self._asking: Any = None
        self._log = log

    def send(self, request: bytearray, asking: Any) -> bool:
        if self.open:
            self._asking = asking
            self._log.append("send")
            self.sent.append(bytes(request))
        return self.open

    def _close(self, reason: Any) -> None:
        """As aiokafka's does."""
        self.open = False
        self.closed.append(reason)
        if not self._asking.done():
            self._asking.set_exception(KafkaConnectionError("closed"))


class Taken:
    """Takes what it is brought, all at once unless ``left`` says that some stays buffered."""

    def __init__(self, log: list[str]) -> None:
        self.allowed = True
        self.left = False
        self.brought: list[tuple[LowerPartition, int, bytes]] = []
        self._log = log

    def applies(self) -> bool:
        return self.allowed

    def take(self, answer: bytes, brought: Sequence[tuple[Part, int, int]]) -> bool:
        self._log.append("take")
        for part, at, size in brought:
            self.brought.append((part.lower, part.offset, answer[at : at + size]))
            part.state.consumed_to(part.offset + STEP)
        return self.left

    def hand_over(self) -> None:
        self._log.append("hand over")


class Scene:
    """A chain over A, B and C at 0; other partitions of its broker are buffered."""

    def __init__(self, others: Sequence[LowerPartition] = (), frames: Any = None) -> None:
        self.log: list[str] = []
        self.wire, self.taken = Wire(self.log), Taken(self.log)
        subscription = SubscriptionState()
        subscription.subscribe({"first", "zwölf"})
        subscription.assign_from_subscribed([A, B, C, *others])
        cluster = SimpleNamespace(leader_for_partition=lambda tp: 2 if tp == FAR else 1)
        loop = asyncio.get_running_loop()
        client = SimpleNamespace(_loop=loop, _metadata_max_age_ms=1000, cluster=cluster)
        self.fetcher: Any = Fetcher(client, subscription)
        self.fetcher._fetch_task.cancel()
        self.assignment = subscription.subscription.assignment
        for tp in self.assignment.tps:
            self.state(tp).seek(0)
        self.fetcher._records.update(dict.fromkeys(others, object()))
        self.frames: Any = cast("Any", self.wire) if frames is None else frames
        self.chain = Chain(
            self.fetcher, self.frames, self.assignment, 1, fetch_of({A: 0, B: 0, C: 0}), self.taken
        )
        self.task: asyncio.Task[Answered | None] | None = None

    def state(self, tp: LowerPartition) -> Any:
        return self.assignment.state_value(tp)

    async def begin(self) -> None:
        self.task = asyncio.create_task(self.chain.run())
        await turns()

    def answer(self, data: bytes) -> None:
        """What was asked for is received."""
        self.wire.received_at = asyncio.get_running_loop().time()
        self.chain.set_result(data)

    async def result(self) -> Answered | None:
        """What it ended with, as far as it has."""
        assert self.task is not None
        await turns()
        assert self.task.done(), "it goes on"
        return self.task.result()

    def expect(self, a: int, b: int, c: int) -> None:
        """What has been sent last."""
        assert self.wire.sent[-1] == bytes_of(fetch_of({A: a, B: b, C: c}))


@contextlib.asynccontextmanager
async def scene_of(*others: LowerPartition, frames: Any = None) -> AsyncIterator[Scene]:
    scene = Scene(others, frames)
    try:
        await turns()
        yield scene
    finally:
        if scene.task is not None:
            scene.task.cancel()
        await turns()
