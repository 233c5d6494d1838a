"""AdminClient: makes and deletes topics."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from prosody.broker.factory import make_broker
from prosody.config import Config
from prosody.config.kinds import Count, Duration, Kind, RefusedError, Text
from prosody.errors import ConfigurationError, ForkError
from prosody.runtime import SystemRuntime

if TYPE_CHECKING:
    from datetime import timedelta
    from types import TracebackType

    from prosody.broker.protocol import Broker, BrokerAdmin


class AdminClient:
    """Makes and deletes topics.

    Takes ``bootstrap_servers``, ``mock`` and the ``kafka_...`` options of the client, with their
    variables. Each call connects and closes again; making the object does no I/O.
    """

    def __init__(self, **options: Any) -> None:
        """
        :raises ConfigurationError: listing every wrong option or variable at once.
        """
        config = Config.load_admin(options, os.environ)
        self._broker: Broker = make_broker(config, SystemRuntime())
        self._pid = os.getpid()

    async def create_topic(
        self,
        name: str,
        *,
        partition_count: int | None = None,
        replication_factor: int | None = None,
        cleanup_policy: str | None = None,
        retention: float | timedelta | str | None = None,
    ) -> None:
        """Create a topic and wait until it can be used. None takes the broker's default.

        :param partition_count: 1 or more.
        :param replication_factor: 1 or more.
        :param cleanup_policy: ``delete``, ``compact`` or ``delete,compact``.
        :param retention: a ``timedelta``, seconds, or text such as ``"7d"``.
        :raises ConfigurationError: a parameter is wrong.
        :raises BrokerError: the broker refuses; its reason is in the text.
        """
        given: dict[str, tuple[object, Kind]] = {
            "name": (name, Text()),
            "partition_count": (partition_count, Count(least=1)),
            "replication_factor": (replication_factor, Count(least=1)),
            "cleanup_policy": (cleanup_policy, Text()),
            "retention": (retention, Duration()),
        }
        problems: list[str] = []
        values: dict[str, Any] = {}
        for parameter, (value, kind) in given.items():
            if value is None and parameter != "name":
                continue
            try:
                values[parameter] = kind.from_option(value)
            except RefusedError as error:
                # Collected, so that all problems are reported together.
                problems.append(f"{parameter}={value!r}: {error}; write {kind.expected}")
        if problems:
            raise ConfigurationError(problems)
        settings: dict[str, str] = {}
        if "cleanup_policy" in values:
            settings["cleanup.policy"] = values["cleanup_policy"]
        if "retention" in values:
            settings["retention.ms"] = str(int(values["retention"] * 1000))
        async with self._admin() as admin:
            await admin.create_topic(
                name,
                partitions=partition_count,
                replication_factor=replication_factor,
                config=settings,
            )

    async def delete_topic(self, name: str) -> None:
        """Delete a topic.

        :raises BrokerError: the broker refuses (a missing topic included).
        """
        async with self._admin() as admin:
            await admin.delete_topic(name)

    def _admin(self) -> _Connected:
        if os.getpid() != self._pid:
            raise ForkError("AdminClient cannot be used after fork: make a new one in the child")
        return _Connected(self._broker)


class _Connected:
    """One connection for one call."""

    def __init__(self, broker: Broker) -> None:
        self._admin = broker.admin()

    async def __aenter__(self) -> BrokerAdmin:
        return self._admin

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._admin.stop()
