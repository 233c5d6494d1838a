"""A member of a consumer group, over aiokafka."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer

from prosody.broker.kafka import internals, lifetimes
from prosody.broker.kafka.assignors import make_assignor
from prosody.broker.kafka.commits import COMMIT_LIMIT_S, Commits
from prosody.broker.kafka.eager import EagerAssignment
from prosody.broker.kafka.errors import LowerError, mapped
from prosody.broker.kafka.foreign import require_same_assignor
from prosody.broker.kafka.handover import CooperativeAssignment
from prosody.broker.kafka.patience import pace_metadata
from prosody.broker.kafka.polls import Polls, partition_fetch_bytes
from prosody.broker.kafka.starts import CALL_LIMIT_S, Starts
from prosody.broker.kafka.topics import subscription_for
from prosody.errors import BrokerError, TopicsNotFoundError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from prosody.broker.kafka.claims import Claim
    from prosody.broker.kafka.rebalance import Assignment
    from prosody.broker.kafka.security import KafkaSecurity
    from prosody.broker.listeners import RebalanceListener, Taker
    from prosody.broker.protocol import (
        ConsumerSettings,
        OffsetAndMetadata,
        Record,
        TopicPartition,
    )
    from prosody.runtime import Runtime

log = logging.getLogger(__name__)

START_LIMIT_S = 30.0
STOP_LIMIT_S = 10.0
ABANDON_GRACE_S = 1.0
RETRY_WAIT_S = 0.1
TOPIC_LOOKS = 5
"""How often a missing topic is looked for: brokers learn of a new topic one after the other."""

# A fetch without data occupies the broker's connection so long, and a partition whose buffer was just
# emptied waits for it: aiokafka has one fetch under way per broker.
_FETCH_WAIT_MS = 100
POLL_SILENCE_S = 300.0
HEARTBEAT_S = 1.0
"""A kept partition is not fetched from the moment one member joins until the last one has, and members
learn of a join by their next heartbeat."""
REVOKE_MARGIN_S = 2.0
"""Left of the rebalance timeout for the join itself, after everything has been revoked."""
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
        self.taker: Taker | None = None
        self._consumer: Any = None
        self._assignment: Assignment | None = None
        self._polls: Polls
        self._commits: Commits
        self._starts: Starts
        self._waiting: asyncio.Future[None] | None = None
        self._woken = False

    # -- life ----------------------------------------------------------------------------------------

    async def start(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        if self._consumer is not None:
            raise BrokerError("start: this consumer was started before", retriable=False)
        subscription = subscription_for(topics)
        settings = self._settings
        doing = f"cannot connect to Kafka at {', '.join(self._servers)}"
        # The assignor speaks for an assignment that needs the consumer that needs the assignor.
        assignor = make_assignor(settings.assignor, _Voice(self))
        self._consumer = consumer = self._make(assignor)
        try:
            with mapped(doing):
                await lifetimes.start_client(consumer, START_LIMIT_S)
                async with asyncio.timeout(CALL_LIMIT_S):
                    await self._require_topics(subscription.names)
                    await require_same_assignor(consumer, settings.group_id, assignor.name)
        except BaseException:
            # Also when cancelled: a start that did not succeed leaves nothing running.
            await self.stop()
            raise
        self._polls = Polls(consumer, self._runtime)
        self._assignment = assignment = self._make_assignment(consumer, listener)
        self._commits = Commits(consumer, assignment, settings.group_id, self._runtime)
        self._starts = Starts(consumer, settings.group_id)
        internals.on_metadata(consumer, assignment.topics_changed)
        # Only now, because start() of a subscribed consumer waits for its assignment, without limit.
        if subscription.pattern is None:
            consumer.subscribe(topics=subscription.names, listener=assignment)
        else:
            consumer.subscribe(pattern=subscription.pattern, listener=assignment)

    def _make_assignment(self, consumer: Any, listener: RebalanceListener) -> Assignment:
        settings = self._settings
        common: dict[str, Any] = {
            "group_id": settings.group_id,
            "runtime": self._runtime,
            "fetch_bytes": settings.fetch_bytes,
            "commit_grace_s": COMMIT_LIMIT_S,
            "on_pollable": self._polls.look_again,
        }
        if settings.assignor == "cooperative":
            return CooperativeAssignment(consumer, listener, **common)
        limit_s = max(0.0, settings.rebalance_timeout_s - REVOKE_MARGIN_S)
        return EagerAssignment(consumer, listener, revoke_limit_s=limit_s, **common)

    def _make(self, assignor: Any) -> Any:
        settings = self._settings
        rebalance_ms = _ms(settings.rebalance_timeout_s)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=list(self._servers),
            group_id=settings.group_id,
            client_id=settings.client_id,
            enable_auto_commit=False,
            # A position outside the log is decided here, not by aiokafka: it would go back to the
            # beginning without a word, and what follows looked as if delivered before.
            auto_offset_reset="none",
            isolation_level="read_committed",
            exclude_internal_topics=True,
            # Exactly one: aiokafka sends a join for each.
            partition_assignment_strategy=(assignor,),
            session_timeout_ms=_ms(settings.session_timeout_s),
            heartbeat_interval_ms=_ms(min(HEARTBEAT_S, settings.session_timeout_s / 3)),
            rebalance_timeout_ms=rebalance_ms,
            # A poller that is gone for good must lose its partitions, one in a long rebalance not.
            max_poll_interval_ms=max(_ms(POLL_SILENCE_S), 2 * rebalance_ms),
            # The answer to a join comes when the slowest member has joined.
            request_timeout_ms=max(_REQUEST_LIMIT_MS, rebalance_ms + 5_000),
            metadata_max_age_ms=_ms(settings.metadata_max_age_s),
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            fetch_max_bytes=settings.fetch_bytes,
            max_partition_fetch_bytes=partition_fetch_bytes(settings.fetch_bytes, 1),
            **self._security.client_options(),
        )
        pace_metadata(consumer._client, self._runtime)
        return consumer

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
            self._polls.wake()
            await assignment.close()
        try:
            await lifetimes.stop_consumer(consumer, STOP_LIMIT_S, ABANDON_GRACE_S)
        except LowerError as error:
            # It is closing anyway: the group notices within the session timeout at the latest.
            log.warning(
                "consumer of group %r did not stop in order: %r", self._settings.group_id, error
            )

    # -- records -------------------------------------------------------------------------------------

    async def poll(
        self, partitions: Collection[TopicPartition], *, max_records: int, timeout_s: float
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        _, assignment = self._started("poll")
        taker = self.taker
        return await self._polls.poll(assignment, partitions, max_records, timeout_s, taker)

    def wake(self) -> None:
        if self._assignment is not None:
            self._polls.wake()

    def seek(self, partition: TopicPartition, offset: int) -> None:
        _, assignment = self._started("seek")
        if partition not in assignment.held:
            raise BrokerError(
                f"seek: not assigned to this member: {partition[0]}/{partition[1]}", retriable=False
            )
        assignment.seek(partition, offset)

    # -- the group -----------------------------------------------------------------------------------

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        if offsets:
            self._started("commit")
            await self._commits.commit(offsets)

    async def settled(self) -> None:
        _, assignment = self._started("settled")
        await assignment.settled()

    def leaving(self) -> None:
        if self._assignment is not None:
            self._assignment.leaving()

    @property
    def problem(self) -> str | None:
        consumer = self._consumer
        if consumer is None or consumer._closed or self._assignment is None:
            return None
        return internals.problem(consumer, self._settings.group_id, self._runtime.monotonic())

    @property
    def unreadable(self) -> Mapping[TopicPartition, str]:
        if self._assignment is None:
            return {}
        return {tp: why.text for tp, why in self._polls.unreadable.items()}

    async def committed(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, OffsetAndMetadata | None]:
        self._started("committed")
        return await self._starts.committed(partitions)

    async def end_offsets(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        self._started("end_offsets")
        return await self._starts.ends(partitions)

    def known_end(self, partition: TopicPartition) -> int | None:
        return None if self._consumer is None else internals.known_end(self._consumer, partition)

    async def partition_count(self, topic: str) -> int:
        consumer, _ = self._started("partition_count")
        with mapped(f"partitions of {topic!r}"):
            async with asyncio.timeout(CALL_LIMIT_S):
                count = await internals.partition_count(consumer, topic)
        if not count:
            raise BrokerError(f"topic {topic!r} does not exist", retriable=True)
        return count

    def _started(self, doing: str) -> tuple[Any, Assignment]:
        if self._consumer is None or self._assignment is None:
            raise BrokerError(f"{doing}: the consumer is not started", retriable=False)
        if self._consumer._closed:
            raise BrokerError(f"{doing}: the consumer is stopped", retriable=False)
        return self._consumer, self._assignment


class _Voice:
    """Speaks for the assignment of a consumer, which is made after the assignor."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer

    def claim(self) -> Claim:
        return self._assignment().claim()

    def asked_to_release(self, partitions: frozenset[TopicPartition]) -> None:
        self._assignment().asked_to_release(partitions)

    def _assignment(self) -> CooperativeAssignment:
        assignment = self._consumer._assignment
        assert isinstance(assignment, CooperativeAssignment), "no join before the subscription"
        return assignment


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
