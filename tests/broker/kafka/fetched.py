"""A consumer of aiokafka without a broker, and fetched batches to put into its buffers."""

from __future__ import annotations

import asyncio
import struct
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as LowerPartition
from aiokafka.consumer.fetcher import (
    READ_COMMITTED,
    Fetcher,
    FetchResult,
    PartitionRecords,
)
from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from prosody.broker.kafka.holding import Holding
from prosody.broker.kafka.polls import Polls
from prosody.broker.protocol import TopicPartition
from tests.support import FakeRuntime

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = b"XXXX"
NOT_UTF8 = b"\xff\xfe\xfd\xfc"


def batch(*offsets: int, headers: Sequence[tuple[str, bytes]] = (), codec: int = 0) -> bytes:
    """Records with these offsets, which follow each other."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=0, producer_id=-1, producer_epoch=-1,
        base_sequence=-1, batch_size=10**6,
    )  # fmt: skip
    for place, offset in enumerate(offsets):
        value = b"%d" % offset
        assert builder.append(place, 1, b"k", value, list(headers)) is not None
    return struct.pack(">q", offsets[0]) + bytes(builder.build())[8:]


def misnamed(*offsets: int) -> bytes:
    """Records with a header whose name is not UTF-8."""
    good = bytearray(batch(*offsets, headers=[("first", b"1"), (NAME.decode(), b"2")]))
    good[:] = good.replace(NAME, NOT_UTF8)
    good[17:21] = struct.pack(">I", calc_crc32c(bytes(good[21:])))
    return bytes(good)


def damaged(*offsets: int) -> bytes:
    """Records that do not match their checksum."""
    data = batch(*offsets)
    return data[:-1] + bytes((data[-1] ^ 0xFF,))


class StandingClock(FakeRuntime):
    """A clock that moves when the test says so."""

    time = 0.0

    def monotonic(self) -> float:
        return self.time


class Fetched:
    """The partitions of topic t, each with a log that the test gives; fetched when :meth:`fetch` is."""

    def __init__(self, partitions: int) -> None:
        self.runtime = StandingClock()
        self.consumer: Any = AIOKafkaConsumer(group_id="g", auto_offset_reset="none")
        self.consumer._coordinator = SimpleNamespace(check_errors=lambda: None)
        self.lower = [LowerPartition("t", n) for n in range(partitions)]
        self.subscription = self.consumer._subscription
        self.subscription.subscribe({"t"})
        self.subscription.assign_from_subscribed(self.lower)
        self.client = SimpleNamespace(
            _loop=asyncio.get_running_loop(), _metadata_max_age_ms=1000, send=self._answer,
            cluster=SimpleNamespace(
                leader_for_partition=lambda tp: 1, add_listener=lambda listener: None
            ),
        )  # fmt: skip
        self.fetcher = self.consumer._fetcher = Fetcher(
            self.client,
            self.subscription,
            auto_offset_reset="none",
            isolation_level="read_committed",
        )
        self.fetcher._fetch_task.cancel()
        self.logs: dict[Any, list[tuple[int, bytes]]] = {tp: [] for tp in self.lower}
        self.refused: set[Any] = set()
        self.fetches = dict.fromkeys(self.lower, 0)
        self.polls = Polls(self.consumer, self.runtime)
        ours = {TopicPartition(*tp): tp for tp in self.lower}
        self.out_of_range: list[tuple[TopicPartition, int | None]] = []
        self.assignment: Any = SimpleNamespace(
            pollable=dict(ours), held={tp: Holding(lower) for tp, lower in ours.items()},
            out_of_range=lambda tp, offset: self.out_of_range.append((tp, offset)),
        )  # fmt: skip
        for tp in self.lower:
            self.state(tp).seek(0)

    def state(self, tp: Any) -> Any:
        return self.subscription.subscription.assignment.state_value(tp)

    def position(self, partition: int) -> int:
        found: int = self.state(self.lower[partition]).position
        return found

    async def fetch(self) -> None:
        """What aiokafka's loop does: fetch what has nothing buffered, from its position."""
        wanted = [tp for tp in self.lower if tp not in self.fetcher._records]
        for tp in wanted:
            self.fetches[tp] += 1
        request = FetchRequest(
            1, 1, 1, 1, [("t", [(tp.partition, self.state(tp).position, 1) for tp in wanted])], ""
        )
        answer = await self.fetcher._client.send(1, request)
        assignment = self.subscription.subscription.assignment
        for _, partitions in answer.topics:
            for partition, *_, data in partitions:
                tp = self.lower[partition]
                position = self.state(tp).position
                if tp in self.refused:
                    self.fetcher._set_error(tp, OffsetOutOfRangeError({tp: position}))
                elif data:
                    records = PartitionRecords(
                        tp, MemoryRecords(data), [], position, None, None, True, READ_COMMITTED
                    )
                    self.fetcher._records[tp] = FetchResult(
                        tp, assignment=assignment, partition_records=records, backoff=0
                    )

    async def _answer(self, node_id: int, request: Any) -> Any:
        partitions = []
        for partition, position, _ in request.topics[0][1]:
            log = self.logs[self.lower[partition]]
            data = b"".join(chunk for last, chunk in log if last >= position)
            partitions.append((partition, 0, 100, 100, [], data))
        return SimpleNamespace(API_VERSION=4, topics=[("t", partitions)])

    def write(self, partition: int, *chunks: tuple[int, bytes]) -> None:
        """Append batches, each with its last offset."""
        self.logs[self.lower[partition]].extend(chunks)

    async def poll(self, records_max: int = 1000) -> dict[int, list[int]]:
        """Fetch and poll: the offsets of each partition."""
        await self.fetch()
        polled = await self.take(records_max)
        return {tp.partition: [record.offset for record in polled[tp]] for tp in polled}

    async def take(self, records_max: int = 1000) -> Any:
        return await self.polls.poll(
            self.assignment, tuple(self.assignment.held), records_max, timeout_s=0.0
        )

    def close(self) -> None:
        assert self.subscription._fetch_count == 0, "aiokafka believes that someone is polling"
        self.consumer._closed = True
