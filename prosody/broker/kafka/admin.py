"""Topics: make, delete, list; over aiokafka's admin client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiokafka import errors as lower
from aiokafka.admin import (
    AIOKafkaAdminClient,
    NewTopic,
)
from aiokafka.admin.config_resource import (
    ConfigResource,
    ConfigResourceType,
)

from prosody.broker.kafka import lifetimes
from prosody.broker.kafka.errors import LowerError, broker_error, mapped
from prosody.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prosody.broker.kafka.security import KafkaSecurity
    from prosody.runtime import Runtime

OPERATION_LIMIT_S = 30.0
STOP_LIMIT_S = 10.0
RETRY_WAIT_S = 0.1

_DEFAULTS = ("num.partitions", "default.replication.factor")


class KafkaAdmin:
    """Implements :class:`~prosody.broker.protocol.BrokerAdmin`. Connects with its first call."""

    def __init__(
        self, bootstrap_servers: tuple[str, ...], *, runtime: Runtime, security: KafkaSecurity
    ) -> None:
        self._servers = bootstrap_servers
        self._runtime = runtime
        self._security = security
        self._client: Any = None
        self._connecting = asyncio.Lock()
        self._closed = False

    async def create_topic(
        self,
        name: str,
        *,
        partitions: int | None = None,
        replication_factor: int | None = None,
        config: Mapping[str, str] | None = None,
    ) -> None:
        doing = f"create topic {name!r}"
        with mapped(doing):
            async with asyncio.timeout(OPERATION_LIMIT_S):
                client = await self._connected()
                if partitions is None or replication_factor is None:
                    # This version of the request has no word for "the broker's default".
                    defaults = await self._defaults(client)
                    partitions = partitions or defaults[0]
                    replication_factor = replication_factor or defaults[1]
                topic = NewTopic(
                    name, partitions, replication_factor, topic_configs=dict(config or {})
                )
                await self._request(doing, lambda: client.create_topics([topic]), "topic_errors")
                await self._usable(client, name, partitions)

    async def delete_topic(self, name: str) -> None:
        doing = f"delete topic {name!r}"
        with mapped(doing):
            async with asyncio.timeout(OPERATION_LIMIT_S):
                client = await self._connected()
                await self._request(
                    doing, lambda: client.delete_topics([name]), "topic_error_codes"
                )
                # Asking for it by name would create it again on a broker that creates topics.
                while name in await client.list_topics():
                    await self._runtime.sleep(RETRY_WAIT_S)

    async def topics(self) -> frozenset[str]:
        with mapped("list topics"):
            async with asyncio.timeout(OPERATION_LIMIT_S):
                client = await self._connected()
                return frozenset(await client.list_topics())

    async def stop(self) -> None:
        self._closed = True
        client, self._client = self._client, None
        if client is not None:
            try:
                async with asyncio.timeout(STOP_LIMIT_S):
                    await client.close()
            except LowerError:
                # It is closing anyway; there is nobody left to tell.
                return

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._closed:
                raise BrokerError("the admin client is stopped", retriable=False)
            if self._client is None:
                client = AIOKafkaAdminClient(
                    bootstrap_servers=list(self._servers),
                    client_id="prosody-admin",
                    request_timeout_ms=round(OPERATION_LIMIT_S * 1000),
                    **self._security.client_options(),
                )
                try:
                    with mapped(f"cannot connect to Kafka at {', '.join(self._servers)}"):
                        await lifetimes.start_client(client, OPERATION_LIMIT_S)
                except BaseException:
                    # Also when cancelled: nothing is left open.
                    await client.close()
                    raise
                self._client = client
            return self._client

    async def _request(self, doing: str, request: Any, field: str) -> None:
        """Send, look at the broker's answer for the topic, and ask again while that may help."""
        while True:
            try:
                response = await request()
                answer = getattr(response, field)[0]
                error = lower.for_code(answer[1])
            except AttributeError:
                # aiokafka knows no controller at present: the cluster is electing one.
                error, answer = lower.NotControllerError, ()
            if error is lower.NoError:
                return
            if error is not lower.NotControllerError:
                # The broker's own words, where this version of the response has them.
                reason = answer[2] if len(answer) > 2 else None
                raise broker_error(doing, error(), reason=reason)
            await self._runtime.sleep(RETRY_WAIT_S)

    async def _defaults(self, client: Any) -> tuple[int, int]:
        """The partitions and replicas a broker gives to a new topic."""
        cluster = await client.describe_cluster()
        node = str(cluster["brokers"][0]["node_id"])
        resource = ConfigResource(ConfigResourceType.BROKER, node, configs=dict.fromkeys(_DEFAULTS))
        (response,) = await client.describe_configs([resource])
        code, reason, _, _, entries = response.resources[0][:5]
        error = lower.for_code(code)
        if error is not lower.NoError:
            doing = "read the broker's defaults (give partitions and replication factor instead)"
            raise broker_error(doing, error(), reason=reason)
        values = {entry[0]: int(entry[1]) for entry in entries}
        return values[_DEFAULTS[0]], values[_DEFAULTS[1]]

    async def _usable(self, client: Any, name: str, partitions: int) -> None:
        """Wait until every partition has a leader; a new topic has none for a moment."""
        while True:
            (topic,) = await client.describe_topics([name])
            led = [p for p in topic["partitions"] if p["leader"] >= 0]
            if len(led) >= partitions:
                return
            await self._runtime.sleep(RETRY_WAIT_S)
