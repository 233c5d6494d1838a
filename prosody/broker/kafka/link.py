"""The cluster as a reader reaches it: connected when it is needed, anew when the connection is broken.

No ``AIOKafkaConsumer``: its ``assign`` throws away the fetches under way of all partitions, positions
included; it drops an answer like "no such topic" without a word; and it asks for several partitions at
once, so that no answer means nothing: the broker may have had no room for it. Here each request is for
one partition, and each answer is seen. Uses private parts of aiokafka; a test fails when a new version
renames any of them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaClient
from aiokafka import errors as lower
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, OffsetResetStrategy
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest

from prosody.broker.kafka import lifetimes
from prosody.broker.kafka.chunks import Chunk
from prosody.broker.kafka.patience import pace_metadata
from prosody.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from prosody.broker.kafka.security import KafkaSecurity
    from prosody.broker.protocol import ReaderSettings, TopicPartition
    from prosody.runtime import Runtime

CLOSE_GRACE_S = 1.0
REQUEST_LIMIT_MIN_S = 1.0
REQUEST_LIMIT_MAX_S = 40.0
REQUESTS_IN_TIME = 3
"""So many requests that get no answer fit into a read's timeout: other brokers may answer."""

# Metadata is asked for when a leader is unknown or was wrong. An idle reader asks for nothing.
_METADATA_AGE_MS = 24 * 3600 * 1000


def request_limit_s(read_limit_s: float) -> float:
    """How long one request may take, of a read that may take so long."""
    return min(max(read_limit_s / REQUESTS_IN_TIME, REQUEST_LIMIT_MIN_S), REQUEST_LIMIT_MAX_S)


class Link:
    """Requests about single partitions, each to its leader. Raises aiokafka's errors, and ours.

    ::

        nothing ──(first request)──▶ connecting ──▶ client ──(broken)──▶ nothing        any ──▶ closed
    """

    def __init__(
        self,
        bootstrap_servers: tuple[str, ...],
        settings: ReaderSettings,
        *,
        runtime: Runtime,
        security: KafkaSecurity,
        topics: Callable[[], Collection[str]],
    ) -> None:
        self._servers = bootstrap_servers
        self._settings = settings
        self._runtime = runtime
        self._security = security
        self._topics = topics
        """Which topics are read just now."""
        self._client: Any = None
        self._connecting: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    # -- requests ------------------------------------------------------------------------------------

    async def fetch(self, tp: TopicPartition, offset: int, wait_ms: int) -> Chunk:
        """What the leader has from an offset on; it waits for data if there is none yet."""
        size = self._settings.fetch_bytes
        request = FetchRequest(
            wait_ms, 1, size, READ_COMMITTED, [(tp.topic, [(tp.partition, offset, size)])]
        )
        answer = await self._ask_leader(tp, request)
        _check(getattr(answer, "error_code", 0), tp)  # about all of it, from version 7 on
        for _, partitions in answer.topics:
            for _, code, _, stable_end, *more in partitions:
                _check(code, tp)
                *_, data = more
                # From version 11 on there is the preferred replica in between.
                aborted = more[-3] if answer.API_VERSION >= 11 else more[-2]
                return Chunk(tp, offset, data or b"", aborted, stable_end)
        # A broker that holds this client to its quota answers with nothing at all.
        raise lower.QuotaViolationError(f"no answer about {tp.topic}/{tp.partition}")

    async def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """The offset of the first record, and the one that the next record will get."""
        beginning = await self._offset(tp, OffsetResetStrategy.EARLIEST)
        return beginning, await self._offset(tp, OffsetResetStrategy.LATEST)

    async def _offset(self, tp: TopicPartition, time: int) -> int:
        # Uncommitted, because what lies behind the beginning of an open transaction is not gone.
        request = OffsetRequest(-1, READ_UNCOMMITTED, [(tp.topic, [(tp.partition, time)])])
        answer = await self._ask_leader(tp, request)
        _, [(_, code, *_, offset)] = answer.topics[0]
        _check(code, tp)
        found: int = offset
        return found

    async def _ask_leader(self, tp: TopicPartition, request: Any) -> Any:
        client = await self._connected()
        return await client.send(await self._leader(client, tp), request)

    async def _leader(self, client: Any, tp: TopicPartition) -> int:
        cluster = client.cluster
        # Twice: an update that is under way already may be one about other topics.
        for _ in range(2):
            if cluster.leader_for_partition(tp) is not None:
                break
            await self._refresh(client)
        node: int | None = cluster.leader_for_partition(tp)
        if node is None:
            if tp.topic in cluster.unauthorized_topics:
                raise lower.TopicAuthorizationFailedError(tp.topic)
            raise lower.UnknownTopicOrPartitionError(f"no partition {tp.topic}/{tp.partition}")
        if node == -1:
            raise lower.LeaderNotAvailableError(f"no leader of {tp.topic}/{tp.partition}")
        return node

    # -- life ----------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Find out anew where the leaders are."""
        await self._refresh(await self._connected())

    async def _refresh(self, client: Any) -> None:
        if not await client.force_metadata_update():
            # All the brokers it knows are away; those to begin with may know others.
            self._discard(client)
            raise lower.KafkaConnectionError("no known broker answers")

    def suspect(self) -> None:
        """Something takes too long: connect anew for the next request."""
        if self._client is not None:
            self._discard(self._client)

    async def close(self) -> None:
        """Close; requests under way fail."""
        self._closed = True
        await lifetimes.cancel_all([self._connecting], lifetimes.START_GRACE_S + CLOSE_GRACE_S)
        if self._client is not None:
            self._discard(self._client)
        if self._closing:
            await asyncio.wait(self._closing)

    async def _connected(self) -> Any:
        """The client; whoever comes first connects, in a task that no caller's end cancels."""
        while self._client is None:
            if self._closed:
                raise BrokerError("this reader is stopped", retriable=False)
            if self._connecting is None:
                self._connecting = asyncio.create_task(self._connect(), name="prosody-kafka reader")
            connecting = self._connecting
            await asyncio.wait((connecting,))
            if self._connecting is connecting:
                self._connecting = None
            connecting.result()
        return self._client

    async def _connect(self) -> None:
        limit_s = request_limit_s(self._settings.seek_timeout_s)
        client = AIOKafkaClient(
            bootstrap_servers=list(self._servers),
            client_id=self._settings.client_id,
            request_timeout_ms=round(limit_s * 1000),
            metadata_max_age_ms=_METADATA_AGE_MS,
            **self._security.client_options(),
        )
        ask_for(client, self._topics)
        pace_metadata(client, self._runtime)
        try:
            # For each address, a connection and three questions, each within the limit of a request.
            await lifetimes.start_within(client.bootstrap(), 4 * limit_s * len(self._servers))
        except BaseException:
            # Also when cancelled: nothing may be left running.
            await lifetimes.close_connections(client, CLOSE_GRACE_S)
            raise
        self._client = client

    def _discard(self, client: Any) -> None:
        if self._client is not client:
            return
        self._client = None
        closing = asyncio.create_task(
            lifetimes.close_connections(client, CLOSE_GRACE_S), name="prosody-kafka reader closes"
        )
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def ask_for(client: Any, topics: Callable[[], Collection[str]]) -> None:
    """Have a client ask for the metadata of just these topics, and make none of them by that.

    By itself it asks for every topic of the cluster when it follows none, and a question about a topic
    that was deleted makes it anew on a broker that creates topics.
    """

    async def update(cluster: Any, _: object) -> bool:
        request = MetadataRequest(sorted(topics()), allow_auto_topic_creation=False)
        for broker in cluster.brokers():
            try:
                answer = await client.send(broker.nodeId, request)
            except (lower.KafkaError, TimeoutError):
                continue  # another one may answer
            cluster.update_metadata(answer)
            return True
        return False

    client._metadata_update = update


def _check(code: int, tp: TopicPartition) -> None:
    if code:
        raise lower.for_code(code)(f"{tp.topic}/{tp.partition}")
