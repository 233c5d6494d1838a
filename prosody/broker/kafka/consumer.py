"""A member of a consumer group, over aiokafka."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer

from prosody.broker.kafka import internals
from prosody.broker.kafka.assignors import make_assignor
from prosody.broker.kafka.errors import LowerError, broker_error, mapped
from prosody.broker.kafka.rebalance import NOT_ASSIGNED, Assignment, partition_fetch_bytes
from prosody.broker.kafka.topics import subscription_for
from prosody.broker.protocol import OffsetAndMetadata, TopicPartition
from prosody.errors import BrokerError, TopicsNotFoundError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from prosody.broker.kafka.security import KafkaSecurity
    from prosody.broker.protocol import ConsumerSettings, RebalanceListener, Record
    from prosody.runtime import Runtime

log = logging.getLogger(__name__)

START_LIMIT_S = 30.0
CALL_LIMIT_S = 30.0
COMMIT_LIMIT_S = 10.0
STOP_LIMIT_S = 10.0
ABANDON_GRACE_S = 1.0
RETRY_WAIT_S = 0.1
TOPIC_LOOKS = 5
"""How often a missing topic is looked for: brokers learn of a new topic one after the other."""

# A fetch without data occupies the broker's connection so long, and a partition whose buffer was just
# emptied waits for it: aiokafka has one fetch under way per broker.
_FETCH_WAIT_MS = 100
_HEARTBEAT_S = 3.0
_POLL_SILENCE_S = 300.0
_REQUEST_LIMIT_MS = 40_000


class KafkaConsumer:
    """Implements :class:`~prosody.broker.protocol.BrokerConsumer`.

    Made, started, stopped: once each. The underlying consumer exists only in between.
    """

    def __init__(
        self,
        bootstrap_servers: tuple[str, ...],
        settings: ConsumerSettings,
        *,
        runtime: Runtime,
        security: KafkaSecurity,
    ) -> None:
        self._servers = bootstrap_servers
        self._settings = settings
        self._runtime = runtime
        self._security = security
        self._consumer: Any = None
        self._assignment: Assignment | None = None
        self._commit_order = asyncio.Lock()
        self._waiting: asyncio.Future[None] | None = None
        self._woken = False

    # -- life ----------------------------------------------------------------------------------------

    async def start(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        if self._consumer is not None:
            raise BrokerError("start: this consumer was started before", retriable=False)
        subscription = subscription_for(topics)
        doing = f"cannot connect to Kafka at {', '.join(self._servers)}"
        self._consumer = consumer = self._make()
        try:
            with mapped(doing):
                await internals.start_client(consumer, START_LIMIT_S)
                async with asyncio.timeout(CALL_LIMIT_S):
                    await self._require_topics(subscription.names)
        except BaseException:
            # Also when cancelled: a start that did not succeed leaves nothing running.
            await self.stop()
            raise
        self._assignment = Assignment(
            consumer,
            listener,
            fetch_bytes=self._settings.fetch_bytes,
            commit_grace_s=COMMIT_LIMIT_S,
            on_pollable=self._look_again,
        )
        # Only now, because start() of a subscribed consumer waits for its assignment, without limit.
        if subscription.pattern is None:
            consumer.subscribe(topics=subscription.names, listener=self._assignment)
        else:
            consumer.subscribe(pattern=subscription.pattern, listener=self._assignment)

    def _make(self) -> Any:
        settings = self._settings
        rebalance_ms = _ms(settings.rebalance_timeout_s)
        return AIOKafkaConsumer(
            bootstrap_servers=list(self._servers),
            group_id=settings.group_id,
            client_id=settings.client_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            exclude_internal_topics=True,
            # Exactly one: aiokafka sends a join for each.
            partition_assignment_strategy=(make_assignor(settings.assignor),),
            session_timeout_ms=_ms(settings.session_timeout_s),
            heartbeat_interval_ms=_ms(min(_HEARTBEAT_S, settings.session_timeout_s / 3)),
            rebalance_timeout_ms=rebalance_ms,
            # A poller that is gone for good must lose its partitions, one in a long rebalance not.
            max_poll_interval_ms=max(_ms(_POLL_SILENCE_S), 2 * rebalance_ms),
            # The answer to a join comes when the slowest member has joined.
            request_timeout_ms=max(_REQUEST_LIMIT_MS, rebalance_ms + 5_000),
            metadata_max_age_ms=_ms(settings.metadata_max_age_s),
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            fetch_max_bytes=settings.fetch_bytes,
            max_partition_fetch_bytes=partition_fetch_bytes(settings.fetch_bytes, 1),
            **self._security.client_options(),
        )

    async def _require_topics(self, names: tuple[str, ...]) -> None:
        if not names:
            return
        for look in range(TOPIC_LOOKS):
            if look:
                await self._runtime.sleep(RETRY_WAIT_S)
            missing = set(names) - await internals.topic_names(self._consumer)
            if not missing:
                return
        raise TopicsNotFoundError(
            sorted(missing), "; create them, or allow this user to describe them"
        )

    async def stop(self) -> None:
        consumer, assignment = self._consumer, self._assignment
        if consumer is None or consumer._closed:
            return
        if assignment is not None:
            assignment.close()
        self.wake()
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                await consumer.stop()
            internals.settle(consumer)
        except LowerError as error:
            # It is closing anyway: the group notices within the session timeout at the latest.
            log.warning(
                "consumer of group %r did not stop in order: %r", self._settings.group_id, error
            )
            await internals.abandon_consumer(consumer, ABANDON_GRACE_S)
        except BaseException:
            # Cancelled: nothing may be left running.
            await internals.abandon_consumer(consumer, ABANDON_GRACE_S)
            raise

    # -- records -------------------------------------------------------------------------------------

    async def poll(
        self, partitions: Collection[TopicPartition], *, max_records: int, timeout_s: float
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        consumer, assignment = self._started("poll")
        deadline = self._runtime.monotonic() + timeout_s
        with mapped("poll"):
            while True:
                records = await self._take(consumer, assignment, partitions, max_records)
                remaining_s = deadline - self._runtime.monotonic()
                if records or self._woken or remaining_s <= 0:
                    self._woken = False
                    return records
                await self._wait(consumer, remaining_s)

    async def _take(
        self,
        consumer: Any,
        assignment: Assignment,
        partitions: Collection[TopicPartition],
        max_records: int,
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        """What is buffered. Does not wait, so a cancellation cannot lose records already taken."""
        if consumer._closed:
            return {}
        if internals.is_reassigning(consumer):
            internals.raise_coordination_error(consumer)
            return {}
        pollable = assignment.pollable
        asked = [pollable[tp] for tp in partitions if tp in pollable]
        # Without any partition getmany() would mean all of them; and it must be called in any case,
        # because that is what keeps the membership.
        records: dict[TopicPartition, Sequence[Record]] = await consumer.getmany(
            *(asked or (NOT_ASSIGNED,)), timeout_ms=0, max_records=max_records
        )
        if records:
            # Only the last one can have more than what was taken.
            internals.let_others_first(consumer, next(reversed(records)))
        return records

    async def _wait(self, consumer: Any, timeout_s: float) -> None:
        """Until records arrive, a rebalance ends, ``wake``, or the timeout."""
        self._waiting = future = internals.waiter(consumer)
        timer = asyncio.get_running_loop().call_later(timeout_s, _set, future)
        try:
            await internals.wait_as_poller(consumer, future)
        finally:
            timer.cancel()
            self._waiting = None

    def wake(self) -> None:
        self._woken = True
        self._look_again()

    def _look_again(self) -> None:
        """Have a poll that waits look at the buffers; it goes on waiting when it finds nothing."""
        if self._waiting is not None:
            _set(self._waiting)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        consumer, assignment = self._started("seek")
        assignment.require((partition,), f"seek {partition.topic}/{partition.partition}")
        with mapped(f"seek {partition.topic}/{partition.partition} to {offset}"):
            consumer.seek(partition, offset)

    # -- offsets -------------------------------------------------------------------------------------

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        if not offsets:
            return
        consumer, assignment = self._started("commit")
        doing = f"commit of group {self._settings.group_id!r}"
        assignment.require(offsets, doing)
        done = assignment.commit_begins()
        committing = asyncio.ensure_future(self._commit(consumer, assignment, offsets, doing))
        # A rebalance that cannot wait any longer cancels ``done``, and with it the commit.
        done.add_done_callback(lambda _: committing.cancel())
        try:
            await committing
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if done.cancelled() and not (task and task.cancelling()):
                # Not the caller was cancelled but the commit, by the rebalance.
                raise BrokerError(f"{doing}: given up for a rebalance", retriable=True) from None
            raise
        finally:
            _set(done)

    async def _commit(
        self,
        consumer: Any,
        assignment: Assignment,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        doing: str,
    ) -> None:
        with mapped(doing):
            # In the order of the calls, so that an older commit cannot overtake a newer one.
            async with asyncio.timeout(COMMIT_LIMIT_S), self._commit_order:
                while True:
                    await internals.ensure_coordinator(consumer)
                    # Again, right before sending: a commit must never travel under another
                    # generation, where the partition may be another member's, and even less as
                    # that of no member, which the broker takes when the group is empty.
                    assignment.require(offsets, doing)
                    try:
                        await internals.commit_once(consumer, offsets)
                    except LowerError as error:
                        if not _repeat_commit(error):
                            raise
                        # The coordinator moved or is loading; the deadline above bounds this.
                        await self._runtime.sleep(RETRY_WAIT_S)
                    else:
                        return

    async def committed(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, OffsetAndMetadata | None]:
        consumer, _ = self._started("committed")
        with mapped(f"committed offsets of group {self._settings.group_id!r}"):
            async with asyncio.timeout(CALL_LIMIT_S):
                found = await internals.committed(consumer, partitions)
        return {
            tp: OffsetAndMetadata(found[tp].offset, found[tp].metadata) if tp in found else None
            for tp in partitions
        }

    async def end_offsets(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        consumer, _ = self._started("end_offsets")
        with mapped("end offsets"):
            async with asyncio.timeout(CALL_LIMIT_S):
                found: Mapping[TopicPartition, int] = await consumer.end_offsets(list(partitions))
        return {tp: found[tp] for tp in partitions}

    def _started(self, doing: str) -> tuple[Any, Assignment]:
        if self._consumer is None or self._assignment is None:
            raise BrokerError(f"{doing}: the consumer is not started", retriable=False)
        if self._consumer._closed:
            raise BrokerError(f"{doing}: the consumer is stopped", retriable=False)
        return self._consumer, self._assignment


def _repeat_commit(error: BaseException) -> bool:
    """Whether the same commit may be sent again under the same membership.

    Not during a rebalance: the partitions may change hands, the owner must decide anew.
    """
    broker = broker_error("", error)
    return broker.retriable and type(error).__name__ != "RebalanceInProgressError"


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
