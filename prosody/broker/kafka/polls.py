"""Taking records out of aiokafka: what a poll returns, what it waits for, how much is fetched ahead."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition as LowerPartition

from prosody.broker.kafka import internals
from prosody.broker.kafka.errors import OutOfRangeError, mapped
from prosody.broker.protocol import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from prosody.broker.kafka.rebalance import Assignment
    from prosody.broker.protocol import Record
    from prosody.runtime import Runtime


class Polls:
    """The polls of one consumer, one at a time."""

    def __init__(self, consumer: Any, runtime: Runtime) -> None:
        self._consumer = consumer
        self._runtime = runtime
        self._waiting: asyncio.Future[None] | None = None
        self._woken = False

    async def poll(
        self,
        assignment: Assignment,
        partitions: Collection[TopicPartition],
        max_records: int,
        timeout_s: float,
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        """See :meth:`prosody.broker.protocol.BrokerConsumer.poll`."""
        deadline = self._runtime.monotonic() + timeout_s
        with mapped("poll"):
            while True:
                records = await self._take(assignment, partitions, max_records)
                remaining_s = deadline - self._runtime.monotonic()
                if records or self._woken or remaining_s <= 0:
                    self._woken = False
                    return records
                await self._wait(remaining_s)

    async def _take(
        self,
        assignment: Assignment,
        partitions: Collection[TopicPartition],
        max_records: int,
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        """What is buffered. Does not wait, so a cancellation cannot lose records already taken."""
        consumer = self._consumer
        if consumer._closed:
            return {}
        if internals.is_reassigning(consumer):
            internals.raise_coordination_error(consumer)
            return {}
        pollable = assignment.pollable
        asked = [pollable[tp] for tp in partitions if tp in pollable]
        # Without any partition getmany() would mean all of them; and it must be called in any case,
        # because that is what keeps the membership.
        records: dict[TopicPartition, Sequence[Record]]
        try:
            records = await consumer.getmany(
                *(asked or (NOT_ASSIGNED,)), timeout_ms=0, max_records=max_records
            )
        except OutOfRangeError as error:
            # Not a failure of the poll: the assignment finds out where these partitions go on.
            for lower, offset in internals.refused_positions(error).items():
                assignment.out_of_range(TopicPartition(lower.topic, lower.partition), offset)
            return {}
        if records:
            # Only the last one can have more than what was taken.
            internals.let_others_first(consumer, next(reversed(records)))
        return records

    async def _wait(self, timeout_s: float) -> None:
        """Until records arrive, a rebalance ends, ``wake``, or the timeout."""
        self._waiting = future = internals.waiter(self._consumer)
        timer = asyncio.get_running_loop().call_later(timeout_s, _set, future)
        try:
            await internals.wait_as_poller(self._consumer, future)
        finally:
            timer.cancel()
            self._waiting = None

    def wake(self) -> None:
        """Make a poll that waits, or the next one, return at once."""
        self._woken = True
        self.look_again()

    def look_again(self) -> None:
        """Have a poll that waits look at the buffers; it goes on waiting when it finds nothing."""
        if self._waiting is not None:
            _set(self._waiting)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


NOT_ASSIGNED = LowerPartition("", 0)
"""A partition nobody can have; asking for it polls without taking any record."""

_LEAST_FETCH = 16 * 1024
_MOST_FETCH = 1024 * 1024


def partition_fetch_bytes(budget: int, partitions: int) -> int:
    """Bytes asked for per partition, so that all of them together stay within ``budget``.

    aiokafka never fetches a partition of which it still has records, so each holds at most one fetch,
    buffered or under way, whatever the number of brokers: ``partitions * result <= budget``, compressed
    as on the wire. At most 1 MiB, which is enough for full speed, and at least 16 KiB, below which a
    fetch costs more than it brings (only then, above ``budget / 16 KiB`` partitions, is the budget
    passed). A record batch larger than the result is still delivered, alone: the broker sees to that.
    """
    return max(_LEAST_FETCH, min(_MOST_FETCH, budget // max(1, partitions)))
