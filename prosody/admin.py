"""AdminClient: makes and deletes topics."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from prosody.broker.factory import make_broker
from prosody.config import Config
from prosody.config.kinds import Count, Duration, Kind, RefusedError, Text
from prosody.errors import ConfigurationError, ForkError, TopicsNotFoundError
from prosody.runtime import SystemRuntime

if TYPE_CHECKING:
    from datetime import timedelta
    from types import TracebackType

    from prosody.broker.protocol import Broker, BrokerAdmin


TIMEOUT_S = 60.0
"""Limit of the look-up of topics at ``subscribe``."""


async def require_failure_topic(config: Config, broker: Broker) -> None:
    """A missing failure topic would show only when the first message fails; say it now.

    :raises TopicsNotFoundError: it is needed, and there is none.
    """
    topic = config.consumer.failure_topic
    if config.mode != "low-latency" or topic is None or config.core.mock:
        return
    admin = broker.admin()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            existing = await admin.topics()
    finally:
        await admin.stop()
    if topic not in existing:
        raise TopicsNotFoundError([topic], " (failure_topic / PROSODY_FAILURE_TOPIC)")


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
        """Create a topic and wait until it can be used.

        None takes what the variable says, and the broker's default where it is unset.

        :param partition_count: 1 or more; ``PROSODY_TOPIC_PARTITIONS``.
        :param replication_factor: 1 or more; ``PROSODY_TOPIC_REPLICATION_FACTOR``.
        :param cleanup_policy: ``delete``, ``compact`` or ``delete,compact``;
            ``PROSODY_TOPIC_CLEANUP_POLICY``.
        :param retention: a ``timedelta``, seconds, or text such as ``"7d"``; ``PROSODY_TOPIC_RETENTION``.
        :raises ConfigurationError: a parameter is wrong.
        :raises BrokerError: the broker refuses; its reason is in the text.
        """
        values = _checked_topic(
            {
                "name": name,
                "partition_count": partition_count,
                "replication_factor": replication_factor,
                "cleanup_policy": cleanup_policy,
                "retention": retention,
            }
        )
        settings: dict[str, str] = {}
        if values["cleanup_policy"] is not None:
            settings["cleanup.policy"] = values["cleanup_policy"]
        if values["retention"] is not None:
            settings["retention.ms"] = str(int(values["retention"] * 1000))
        async with self._admin() as admin:
            await admin.create_topic(
                name,
                partitions=values["partition_count"],
                replication_factor=values["replication_factor"],
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


_TOPIC_PARAMETERS: dict[str, tuple[Kind, str | None]] = {
    "name": (Text(), None),
    "partition_count": (Count(least=1), "PROSODY_TOPIC_PARTITIONS"),
    "replication_factor": (Count(least=1), "PROSODY_TOPIC_REPLICATION_FACTOR"),
    "cleanup_policy": (Text(), "PROSODY_TOPIC_CLEANUP_POLICY"),
    "retention": (Duration(), "PROSODY_TOPIC_RETENTION"),
}
"""What each parameter may be, and the variable that is read where it is not given."""


def _checked_topic(given: dict[str, object]) -> dict[str, Any]:
    """The parameters of a new topic, those not given from their variables; None where neither is.

    :raises ConfigurationError: naming every problem.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for parameter, value in given.items():
        kind, variable = _TOPIC_PARAMETERS[parameter]
        text = os.environ.get(variable) if variable and value is None else None
        if text is not None and text.strip().lower() == "none":
            text = None
        try:
            if text is not None:
                values[parameter] = kind.from_variable(text)
            elif value is None and variable:
                values[parameter] = None
            else:
                values[parameter] = kind.from_option(value)
        except RefusedError as error:
            # Collected, so that all problems are reported together.
            said = f"{variable}={text!r}" if text is not None else f"{parameter}={value!r}"
            problems.append(f"{said}: {error}; write {kind.expected}")
    if problems:
        raise ConfigurationError(problems)
    return values


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
