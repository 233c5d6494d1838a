"""What is loaded, what is remembered, and how much of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from prosody.broker.memory import MemoryBroker, MemoryCluster
from prosody.broker.memory.log import MemoryRecord
from prosody.broker.protocol import ReaderSettings, Record, TopicPartition
from prosody.deferral.loader import CACHE_BYTES, OVERHEAD_BYTES, RECORD_BYTES_MAX, Loader
from prosody.errors import BrokerError
from prosody.runtime import SystemRuntime

TP = TopicPartition("orders", 3)
KIB = 1024


def record(
    offset: int, value: bytes | None = b"v", *, tp: TopicPartition = TP, **fields: Any
) -> Record:
    headers = fields.get("headers", ())
    return MemoryRecord(*tp, offset, 1_000, fields.get("key", b"k"), value, headers)


class Reader:
    """A reader of the test's own: everything is there unless it says otherwise."""

    def __init__(self) -> None:
        self.reads: list[tuple[TopicPartition, int]] = []
        self.gone: set[int] = set()
        self.failure: BrokerError | None = None
        self.gate: asyncio.Event | None = None
        self.size = 1
        self.stops = 0

    async def read(self, partition: TopicPartition, offset: int) -> Record | None:
        self.reads.append((partition, offset))
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return None if offset in self.gone else record(offset, bytes(self.size), tp=partition)

    async def stop(self) -> None:
        self.stops += 1


async def kept(loader: Loader, reader: Reader, *offsets: int) -> list[int]:
    """Which of these need no load; those that do are not remembered by being looked at."""
    found = []
    reader.gone = set(offsets)
    for offset in offsets:
        before = len(reader.reads)
        await loader.load(TP, offset)
        if len(reader.reads) == before:
            found.append(offset)
    reader.gone = set()
    return found


async def test_what_is_remembered_is_not_loaded() -> None:
    reader = Reader()
    loader = Loader(reader, 10)
    mine = record(5)
    loader.remember(mine)
    assert await loader.load(TP, 5) is mine
    assert await loader.load(TopicPartition("orders", 3), 5) is mine
    assert reader.reads == []
    for tp, offset in ((TopicPartition("orders", 2), 5), (TopicPartition("other", 3), 5), (TP, 6)):
        found = await loader.load(tp, offset)
        assert found is not None
        assert (found.topic, found.partition, found.offset) == (*tp, offset)
        assert reader.reads[-1] == (tp, offset)


async def test_what_was_loaded_is_remembered_until_it_is_forgotten() -> None:
    reader = Reader()
    loader = Loader(reader, 10)
    first = await loader.load(TP, 5)
    assert await loader.load(TP, 5) is first
    assert len(reader.reads) == 1
    loader.forget(TP, 5)
    loader.forget(TP, 5)
    assert await loader.load(TP, 5) is not first
    assert len(reader.reads) == 2


async def test_what_is_gone_or_fails_is_asked_for_again() -> None:
    reader = Reader()
    loader = Loader(reader, 10)
    reader.gone = {5}
    assert await loader.load(TP, 5) is None
    assert await loader.load(TP, 5) is None
    reader.failure = BrokerError("away", retriable=True)
    with pytest.raises(BrokerError) as told:
        await loader.load(TP, 6)
    assert told.value is reader.failure
    reader.failure = None
    assert await loader.load(TP, 6) is not None
    assert reader.reads == [(TP, 5), (TP, 5), (TP, 6), (TP, 6)]


async def test_a_cancelled_load_remembers_nothing() -> None:
    reader = Reader()
    reader.gate = asyncio.Event()
    loader = Loader(reader, 10)
    loading = asyncio.create_task(loader.load(TP, 5))
    await asyncio.sleep(0)
    loading.cancel()
    await asyncio.wait((loading,))
    reader.gate = None
    assert await loader.load(TP, 5) is not None
    assert len(reader.reads) == 2


async def test_so_many_records_and_the_latest_used() -> None:
    reader = Reader()
    loader = Loader(reader, 3)
    for offset in range(3):
        loader.remember(record(offset))
    await loader.load(TP, 0)
    loader.remember(record(1))
    loader.remember(record(3))
    assert await kept(loader, reader, 0, 1, 2, 3) == [0, 1, 3]


async def test_so_many_bytes() -> None:
    reader = Reader()
    loader = Loader(reader, 1_000_000)
    size = 60 * KIB
    count = CACHE_BYTES // (size + OVERHEAD_BYTES + 1)
    for offset in range(count + 10):
        loader.remember(record(offset, bytes(size)))
    assert await kept(loader, reader, *range(count + 10)) == list(range(10, count + 10))


async def test_small_records_count_with_what_they_are_made_of() -> None:
    loader = Loader(Reader(), 1_000_000)
    for offset in range(100_000):
        loader.remember(record(offset, None, key=None))
    assert len(loader._cache) == CACHE_BYTES // OVERHEAD_BYTES


@pytest.mark.parametrize(
    "fields",
    [
        {"value": bytes(RECORD_BYTES_MAX)},
        {"value": None, "key": bytes(RECORD_BYTES_MAX + 1)},
        {"value": b"", "headers": [("n", bytes(RECORD_BYTES_MAX)), ("none", None)]},
        {"value": b"", "headers": [("n" * RECORD_BYTES_MAX, None)]},
    ],
)
async def test_a_large_record_is_not_remembered(fields: dict[str, Any]) -> None:
    reader = Reader()
    loader = Loader(reader, 10)
    loader.remember(record(1))
    loader.remember(record(2, bytes(RECORD_BYTES_MAX - 1)))  # with its key the most there may be
    loader.remember(record(5, **fields))
    assert await kept(loader, reader, 1, 2, 5) == [1, 2]


async def test_a_large_record_is_loaded_each_time() -> None:
    reader = Reader()
    reader.size = RECORD_BYTES_MAX + 1
    loader = Loader(reader, 10)
    for _ in range(2):
        found = await loader.load(TP, 5)
        assert found is not None
        assert len(found.value or b"") == reader.size
    assert len(reader.reads) == 2


async def test_a_cache_of_less_than_a_record() -> None:
    reader = Reader()
    loader = Loader(reader, 10, cache_bytes=100)
    loader.remember(record(1))
    assert await loader.load(TP, 1) is not None
    assert await kept(loader, reader, 1) == []


async def test_a_stop_ends_the_reader() -> None:
    reader = Reader()
    loader = Loader(reader, 10)
    loader.remember(record(1))
    await loader.stop()
    await loader.stop()
    assert reader.stops == 2
    assert await kept(loader, reader, 1) == []


async def test_over_the_embedded_broker() -> None:
    cluster = MemoryCluster()
    cluster.create_topic("t", 1)
    broker = MemoryBroker(cluster, runtime=SystemRuntime(), auto_create_topics=False)
    [log] = cluster.logs("t")
    for n in range(5):
        log.append(n, b"k", b"%d" % n, ())
    loader = Loader(broker.reader(ReaderSettings("loader", 30.0, 100)), 10)
    tp = TopicPartition("t", 0)
    found = await loader.load(tp, 3)
    assert found is not None
    assert (found.value, found.timestamp) == (b"3", 3)
    cluster.truncate("t", 0, 4)
    assert await loader.load(tp, 3) is found  # still remembered, and still what was deferred
    assert await loader.load(tp, 2) is None
    await loader.stop()
    with pytest.raises(BrokerError, match="stopped"):
        await loader.load(tp, 4)
