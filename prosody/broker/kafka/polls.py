"""Taking records out of aiokafka: what a poll returns, what it waits for, how much is fetched ahead."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka import TopicPartition as LowerPartition

from prosody.broker.kafka import internals
from prosody.broker.kafka.buffers import Buffers
from prosody.broker.kafka.errors import HINTS, OutOfRangeError, broker_error, mapped
from prosody.broker.protocol import TopicPartition
from prosody.errors import BrokerError
from prosody.model.fields import fields_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from prosody.broker.kafka.rebalance import Assignment
    from prosody.broker.protocol import Receiver, Record, Taker
    from prosody.runtime import Runtime

log = logging.getLogger(__name__)

READ_RETRY_S = 5.0
"""Pause between tries to read a partition that cannot be read."""

_WHAT_TO_DO = (
    "none of its records comes before it can: have the replica restored, or the records deleted up to "
    "the next that can be read; the other partitions go on"
)


class Unreadable(NamedTuple):
    """Why a partition gives no records."""

    position: int | None
    """Where it stands; it is read again at once after a seek."""
    retry_at: float
    text: str


class Polls:
    """The polls of one consumer, one at a time."""

    def __init__(self, consumer: Any, runtime: Runtime) -> None:
        self._consumer = consumer
        self._buffers = Buffers(consumer._fetcher)
        self.unreadable: dict[TopicPartition, Unreadable] = {}
        self._untold: list[str] = []
        """Why partitions have become unreadable, each to be raised by one poll."""
        self._runtime = runtime
        self._waiting: asyncio.Future[None] | None = None
        self._woken = False

    async def poll(
        self,
        assignment: Assignment,
        partitions: Collection[TopicPartition],
        max_records: int,
        timeout_s: float,
        taker: Taker | None = None,
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
                if taker is None:
                    await self._wait(remaining_s)
                    continue
                self._buffers.fetches.waiting = _Waiting(self, assignment, taker)
                try:
                    await self._wait(remaining_s)
                finally:
                    self._buffers.fetches.waiting = None
                # Some may be full of what was taken meanwhile.
                partitions = [tp for tp in partitions if taker.wants(tp) is not None]

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
            # ``getmany`` would wait for the end of the join; what is pollable is ours all the time.
            internals.raise_coordination_error(consumer)
        else:
            # It takes nothing here, but keeps the membership and drops what is no longer assigned.
            await consumer.getmany(NOT_ASSIGNED, timeout_ms=0)
        self._forget_others(assignment)
        if self._untold:
            raise BrokerError(self._untold.pop(0), retriable=False)
        held, pollable = assignment.held, assignment.pollable
        asked = {
            lower: tp
            for tp in partitions
            # What was sent elsewhere during a join is not asked for: aiokafka still has it where it was.
            if (lower := pollable.get(tp)) is not None and held[tp].position is None
        }
        records: dict[TopicPartition, Sequence[Record]] = {}
        left = max_records
        for lower in self._buffers.partitions():
            if left and (tp := asked.get(lower)) is not None:
                found = self._take_one(assignment, tp, lower, left)
                if found:
                    records[tp] = found
                    left -= len(found)
        if records:
            # Only the last one can have more than what was taken.
            internals.let_others_first(consumer, next(reversed(records)))
        elif self._untold:
            raise BrokerError(self._untold.pop(0), retriable=False)
        return records

    def _take_one(
        self, assignment: Assignment, tp: TopicPartition, lower: Any, records_max: int
    ) -> Sequence[Record]:
        failure = self.unreadable.get(tp)
        position = internals.position(internals.assignment_state(self._consumer), lower)
        now = self._runtime.monotonic()
        if failure is not None and failure.position == position and now < failure.retry_at:
            return ()
        try:
            records = self._buffers.take(lower, records_max)
        except OutOfRangeError as error:
            # Not a failure: the assignment finds out where the partition goes on.
            offset = internals.refused_positions(error)[lower]
            assignment.out_of_range(tp, offset)
            return ()
        except Exception as error:  # noqa: BLE001  # one partition must not stop the others
            self._note_unreadable(tp, position, error)
            return ()
        if records and self.unreadable.pop(tp, None) is not None:
            log.info(
                "%s/%d can be read again", tp.topic, tp.partition, extra=fields_of(tp, position)
            )
        return records

    def _note_unreadable(self, tp: TopicPartition, position: int | None, error: Exception) -> None:
        """Have it told, once for as long as the reason and the place are the same."""
        doing = f"{tp.topic}/{tp.partition} cannot be read at offset {position}"
        text = str(broker_error(doing, error))
        if type(error) not in HINTS:
            text = f"{text}; {_WHAT_TO_DO}"
        known = self.unreadable.get(tp)
        if known is None or known.text != text:
            self._untold.append(text)
        retry_at = self._runtime.monotonic() + READ_RETRY_S
        self.unreadable[tp] = Unreadable(position, retry_at, text)

    def _forget_others(self, assignment: Assignment) -> None:
        """Drop what is noted of partitions that are another's now."""
        for tp in [tp for tp in self.unreadable if tp not in assignment.held]:
            del self.unreadable[tp]
        self._buffers.keep_only(assignment.held)

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

    def fail(self, fault: Exception) -> None:
        """Make a poll that waits raise ``fault``."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(fault)

    def look_again(self) -> None:
        """Have a poll that waits look at the buffers; it goes on waiting when it finds nothing."""
        if self._waiting is not None:
            _set(self._waiting)


class _Waiting:
    """A poll that waits, and who takes records meanwhile."""

    def __init__(self, polls: Polls, assignment: Assignment, taker: Taker) -> None:
        self._polls = polls
        self._assignment = assignment
        self._taker = taker
        self.take = taker.take
        self.fail = polls.fail

    def wants(self, partition: Any) -> Receiver | None:
        """Who takes records of a partition; what nobody takes waits in its buffer."""
        held = self._assignment.held.get(partition)
        if (
            held is not None
            and partition in self._assignment.pollable
            and held.position is None
            and partition not in self._polls.unreadable
        ):
            return self._taker.wants(partition)
        return None


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
