"""Bytes in memory stay within what is promised, with many partitions and with large records.

Promised (``partition_fetch_bytes``): of each partition at most one fetch is buffered, of its share of
``fetch_bytes`` or of one batch of records where that is larger. What is polled and not yet admitted is at
most such a fetch more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from prosody import Context, Message
from tests.client.support import DEADLINE_S, Place, Recorder, eventually

if TYPE_CHECKING:
    from prosody import ProsodyClient

MIB = 1024 * 1024
PARTITIONS = 200
BUDGET = 8 * MIB

pytestmark = [pytest.mark.real, pytest.mark.parametrize("place", ["kafka"], indirect=True)]


class Buffers:
    """Looks into the client: what aiokafka has fetched, and what partitions have in their inbox."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._lower: list[Any] = []
        self.client: ProsodyClient | None = None
        self.most_fetched = self.most_polled = 0
        make = AIOKafkaConsumer.__init__

        def remember(lower: Any, *args: Any, **options: Any) -> None:
            make(lower, *args, **options)
            if lower._group_id is not None:
                self._lower.append(lower)

        monkeypatch.setattr(AIOKafkaConsumer, "__init__", remember)

    @property
    def _fetched(self) -> dict[Any, int]:
        (lower,) = self._lower
        found = {}
        for tp, result in lower._fetcher._records.items():
            if (records := getattr(result, "_partition_records", None)) is not None:
                found[tp] = records._records.size_in_bytes()
        return found

    @property
    def _polled(self) -> list[int]:
        """Bytes of each partition that are polled and not admitted; 0 where all are."""
        assert self.client is not None
        assert self.client._consumer is not None
        inboxes: list[Any] = [p.inbox for p in self.client._consumer._assignment.partitions()]
        return [
            sum(len(r.value or b"") for r in inbox._records[inbox._next :]) for inbox in inboxes
        ]

    @property
    def fetched_of(self) -> int:
        """Partitions of which something is buffered in aiokafka."""
        return len(self._fetched)

    @property
    def polled_of(self) -> int:
        """Partitions that have more than they may admit."""
        return sum(polled > 0 for polled in self._polled)

    def look(self) -> None:
        """Remember the most that was ever seen."""
        self.most_fetched = max(self.most_fetched, sum(self._fetched.values()))
        self.most_polled = max(self.most_polled, sum(self._polled))


async def fill(place: Place, partitions: int, records: int, size: int) -> int:
    """Write records of ``size`` bytes, one to a batch where they are large; the bytes of a batch."""
    await place.create_topic(partitions=partitions)
    batch = max(size + 1024, 16 * 1024)
    producer = AIOKafkaProducer(
        bootstrap_servers=list(place.broker._servers),  # type: ignore[attr-defined]
        max_batch_size=batch,
        max_request_size=2 * MIB,
    )
    await producer.start()
    value = b'"' + b"x" * (size - 2) + b'"'
    try:
        todo = [(n, r) for r in range(records) for n in range(partitions)]
        at_once = 16 * MIB // size  # a request of more than 100 MiB is not taken
        for at in range(0, len(todo), at_once):
            acknowledged = [
                await producer.send(place.topic, value, key=b"key-%d" % n, partition=n)
                for n, _ in todo[at : at + at_once]
            ]
            await asyncio.gather(*acknowledged)
    finally:
        await producer.stop()
    return batch


class Held(Recorder):
    """Waits in each handler until released, and looks into the buffers."""

    def __init__(self, buffers: Buffers) -> None:
        super().__init__(self._wait)
        self.released = asyncio.Event()
        self.failed: Exception | None = None
        self._buffers = buffers

    async def _wait(self, context: Context, message: Message) -> None:
        await self.released.wait()
        if len(self.handled) % 20 == 0:
            try:
                self._buffers.look()
            except Exception as error:
                self.failed = error  # told by until_all: a handler's error would only be logged
                raise

    async def until_all(self, count: int) -> None:
        async with asyncio.timeout(2 * DEADLINE_S):
            while len(self.handled) < count:
                self._changed.clear()
                await self._changed.wait()
                if self.failed is not None:
                    raise self.failed
        assert len({(m.partition, m.offset) for m in self.attempts}) == len(self.attempts) == count
        for key, payloads in self.by_key().items():
            assert len(payloads) == count // len(self.by_key()), key


async def test_small_records_of_many_partitions(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, size = 20, 5_000
    await fill(place, PARTITIONS, records, size)
    assert records * size > 2 * BUDGET // PARTITIONS, "more than two shares of each"
    buffers = Buffers(monkeypatch)
    held = Held(buffers)
    buffers.client = client = place.client(
        fetch_bytes=BUDGET, max_uncommitted=1, max_concurrency=PARTITIONS
    )
    await client.subscribe(held)

    async def everything_is_full() -> bool:
        buffers.look()
        return buffers.fetched_of == buffers.polled_of == PARTITIONS

    await eventually(everything_is_full, "each partition should hold a fetch twice")
    held.released.set()
    await held.until_all(PARTITIONS * records)
    assert BUDGET / 2 < buffers.most_fetched <= BUDGET
    assert 0 < buffers.most_polled <= BUDGET


async def test_large_records_of_many_partitions(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is larger than a share, so they come one by one; none is passed over."""
    batch = await fill(place, PARTITIONS, 1, 900_000)
    buffers = Buffers(monkeypatch)
    held = Held(buffers)
    held.released.set()
    buffers.client = client = place.client(fetch_bytes=BUDGET, max_concurrency=4)
    await client.subscribe(held)
    await held.until_all(PARTITIONS)
    assert buffers.most_fetched + buffers.most_polled <= BUDGET + batch


async def test_large_records_of_full_partitions(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the budget is passed, by as much as is said: a batch of each partition, and one polled."""
    partitions, records = 20, 4
    batch = await fill(place, partitions, records, 900_000)
    buffers = Buffers(monkeypatch)
    held = Held(buffers)
    buffers.client = client = place.client(
        fetch_bytes=MIB, max_uncommitted=1, max_concurrency=partitions
    )
    await client.subscribe(held)

    async def everything_is_full() -> bool:
        buffers.look()
        return buffers.fetched_of == buffers.polled_of == partitions

    await eventually(everything_is_full, "each partition should hold a batch twice")
    held.released.set()
    await held.until_all(partitions * records)
    assert buffers.most_fetched <= partitions * batch
    assert buffers.most_polled <= partitions * batch
