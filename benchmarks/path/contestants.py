"""What is measured: the client in a mode, and the baselines it is set against."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

import prosody._core
from benchmarks.path.work import Checked, Row
from prosody.broker.protocol import OffsetAndMetadata, TopicPartition
from prosody.client import ProsodyClient
from prosody.config import Config
from prosody.consume.decode import make_message
from prosody.runtime import SystemRuntime

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.path.places import Place
    from prosody.broker.protocol import Start

_groups = itertools.count(1)
DEADLINE_S = 300.0
Contestant = Callable[["Place", int, str, float], Awaitable[Row]]


def _group() -> str:
    """Each run has one of its own, so that several may consume the same records."""
    return f"bench-group-{next(_groups)}"


def client(mode: str, **options: Any) -> Contestant:
    """The client, with default options unless given."""

    async def run(place: Place, count: int, keys: str, delay_s: float) -> Row:
        handler = Checked(count, delay_s)
        group = _group()
        values: dict[str, Any] = {
            "mock": True,
            "group_id": group,
            "subscribed_topics": place.topic,
            "source_system": "me",
            "mode": mode,
            **options,
        }
        made = ProsodyClient.from_parts(Config.load(values, {}), place.broker, SystemRuntime())
        await made.subscribe(handler)
        async with asyncio.timeout(DEADLINE_S):
            await handler.done.wait()
        if made._telemetry.emitter is not None:
            await made._telemetry.emitter.flush()  # part of the work, and of what is measured
        seconds, cpu_seconds = handler.took()
        await made.shutdown()
        name = f"{mode} ({prosody._core.IMPLEMENTATION})"
        if options:
            name += " " + ", ".join(f"{k}={v}" for k, v in options.items())
        return Row(
            name,
            count,
            keys,
            seconds,
            cpu_seconds,
            handler.order_faults,
            count - handler.handled,
            await place.uncommitted(group),
        )

    return run


class _Member:
    """A listener that says when there are partitions."""

    def __init__(self) -> None:
        self.assigned: list[TopicPartition] = []
        self.ready = asyncio.Event()

    def on_assigned(self, starts: Mapping[TopicPartition, Start]) -> None:
        self.assigned += sorted(starts)
        self.ready.set()

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None: ...
    def on_lost(self, partitions: frozenset[TopicPartition]) -> None: ...


async def bare(place: Place, count: int, keys: str, delay_s: float) -> Row:
    """A loop that polls the same broker, decodes and builds the message; one after the other.

    No keys, no concurrency, no commits but one at the end: the least that any consumer does.
    """
    group = _group()
    consumer = place.consumer(group)
    member = _Member()
    decode = msgspec.json.Decoder().decode
    check = Checked(count)
    handled = 0
    await consumer.start([place.topic], member)
    await member.ready.wait()
    last: dict[TopicPartition, int] = {}
    while handled < count:
        polled = await consumer.poll(member.assigned, max_records=1000, timeout_s=1.0)
        for tp, records in polled.items():
            for record in records:
                message = make_message(
                    record.topic,
                    record.partition,
                    record.offset,
                    record.timestamp,
                    record.key.decode(),
                    decode(record.value),
                )
                await check.on_message(None, message)
            handled += len(records)
            last[tp] = records[-1].offset + 1
    await consumer.commit({tp: OffsetAndMetadata(offset) for tp, offset in last.items()})
    seconds, cpu_seconds = check.took()
    await consumer.stop()
    left = await place.uncommitted(group)
    return Row(
        "bare loop", count, keys, seconds, cpu_seconds, check.order_faults, count - handled, left
    )


def unordered(limit: int) -> Contestant:
    """A task for each message, ``limit`` at a time, no order for a key: what concurrency alone can do."""

    async def run(place: Place, count: int, keys: str, delay_s: float) -> Row:
        consumer = place.consumer(_group())
        member = _Member()
        decode = msgspec.json.Decoder().decode
        check = Checked(count, delay_s)
        slots = asyncio.Semaphore(limit)
        tasks: set[asyncio.Task[None]] = set()

        async def one(message: Any) -> None:
            try:
                await check.on_message(None, message)
            finally:
                slots.release()

        await consumer.start([place.topic], member)
        await member.ready.wait()
        polled_count = 0
        while polled_count < count:
            polled = await consumer.poll(member.assigned, max_records=1000, timeout_s=1.0)
            for records in polled.values():
                polled_count += len(records)
                for record in records:
                    message = make_message(
                        record.topic,
                        record.partition,
                        record.offset,
                        record.timestamp,
                        record.key.decode(),
                        decode(record.value),
                    )
                    await slots.acquire()
                    task = asyncio.create_task(one(message))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
        await check.done.wait()
        seconds, cpu_seconds = check.took()
        await consumer.stop()
        name = f"unordered tasks, {limit} at a time"
        # It promises neither order nor commits, so neither is counted against it.
        return Row(name, count, keys, seconds, cpu_seconds, None, count - check.handled, None)

    return run
