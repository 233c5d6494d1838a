"""ProsodyClient: assembles the parts and is the only place that knows them all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING, Any, Self

from prosody.admin import require_failure_topic
from prosody.broker.factory import make_broker
from prosody.broker.memory import MemoryBroker
from prosody.config import Config
from prosody.consume.consumer import Consumer
from prosody.consume.parts import metrics_of, producer_settings
from prosody.consume.picture import nothing, picture
from prosody.consume.why import why_key
from prosody.errors import (
    ClientClosedError,
    ConfigurationError,
    ConsumerStateError,
    ForkError,
)
from prosody.model.handler import HandlerMethods
from prosody.model.run import shorten
from prosody.observe.tracing import Tracing
from prosody.produce import Producer
from prosody.runtime import SystemRuntime
from prosody.stores.factory import make_stores
from prosody.telemetry.client_events import ClientTelemetry

if TYPE_CHECKING:
    from types import TracebackType

    from prosody.broker.protocol import Broker
    from prosody.consume.inside import Inside
    from prosody.middleware.deduplication import Recent
    from prosody.model.message import JSONValue
    from prosody.model.snapshot import Snapshot
    from prosody.runtime import Runtime

_log = logging.getLogger("prosody.client")

_CLOSED = "the client was shut down; make a new one"


class ProsodyClient:
    """Sends to Kafka topics, and gives the messages of topics to a handler.

    Options are keyword arguments; each falls back to its environment variable, then to its default
    (tables in the README). Making a client does no I/O: it connects at the first ``send`` or
    ``subscribe``, in the event loop that calls it.

    The consumer's state, ``await consumer_state()``::

        unconfigured   group_id or subscribed_topics are missing: sending only
        configured  <-> running          by subscribe and unsubscribe
        any          -> shut_down        by shutdown, for good

    Usable as ``async with ProsodyClient(...) as client``, which calls ``shutdown`` at the end.
    """

    def __init__(self, **options: Any) -> None:
        """
        :raises ConfigurationError: listing every wrong option or variable at once.
        :raises ConfigurationTypeError: the same, when one of the values has the wrong type.
        """
        config = Config.load(options, os.environ)
        runtime = SystemRuntime()
        self._assemble(config, make_broker(config, runtime), runtime)

    @classmethod
    async def create(cls, **options: Any) -> Self:
        """Make a client; the same as calling the class. Options and errors as there."""
        return cls(**options)

    @classmethod
    def from_parts(cls, config: Config, broker: Broker, runtime: Runtime) -> Self:
        """Make a client over a given broker and runtime, as tests and simulations do."""
        client = cls.__new__(cls)
        client._assemble(config, broker, runtime)
        return client

    def _assemble(self, config: Config, broker: Broker, runtime: Runtime) -> None:
        for warning in config.warnings:
            _log.warning("%s", warning)
        self._config = config
        self._broker = broker
        self._cluster = broker.cluster if isinstance(broker, MemoryBroker) else None
        """The embedded cluster keeps timers, deferred work and deduplication as well."""
        self._runtime = runtime
        self._pid = os.getpid()
        self._client_id = socket.gethostname()
        self._tracing = Tracing(own=not config.core.mock)
        self._metrics = metrics_of(config, runtime)
        settings = producer_settings(config, self._client_id)
        self._telemetry = ClientTelemetry(config, broker, settings, runtime)
        self._metrics.events = self._telemetry.events
        self._producer = Producer(
            broker,
            settings,
            source_system=config.core.source_system,
            send_timeout_s=config.producer.send_timeout,
            id_cache_size=(
                config.consumer.idempotence_cache_size if config.extra.send_cache_enabled else 0
            ),
            tracing=self._tracing,
            report=self._telemetry.sent,
            metrics=self._metrics,
        )
        self._consumer: Consumer | None = None
        self._recent: Recent | None = None
        """The message ids of the last subscription, which the next one goes on with."""
        self._changing = asyncio.Lock()
        """Held by subscribe, unsubscribe and shutdown, so that they follow one another."""
        self._closed = False
        """No more subscriptions."""
        self._sends_closed = False
        """No more sends: later, because handlers that still run may send."""

    async def send(self, topic: str, key: str, payload: JSONValue) -> None:
        """Send one message and wait until the broker has it.

        The key decides the partition: messages of one key keep their order. A message whose text
        ``id`` was sent before with the same topic and key is skipped (``send_cache_enabled``).

        Cancelling returns at once. The message may still be delivered, and other sends go on.

        :param payload: any JSON value, as Python objects.
        :raises PayloadError: the payload is no JSON, or topic or key are no text.
        :raises SendTimeoutError: not acknowledged within ``send_timeout``; it may still be delivered.
        :raises SendError: refused by the broker.
        :raises ClientClosedError: the client was shut down.
        """
        self._check_process()
        if self._sends_closed:
            raise ClientClosedError(_CLOSED)
        await self._tracing.begin()
        self._telemetry.begin()
        await self._producer.send(topic, key, payload)

    async def subscribe(self, handler: object) -> None:
        """Begin to give messages to ``handler``, in this event loop.

        Returns when the group is joined or about to be; it does not wait for an assignment. When it
        raises, the client is as it was before, and can try again.

        :param handler: an :class:`~prosody.EventHandler`, or any object with its methods.
        :raises HandlerTypeError: the object lacks ``on_message``, or a method cannot be called.
        :raises ConfigurationError: options needed for consuming are missing, or ``probe_port`` is taken.
        :raises TopicsNotFoundError: naming every missing topic.
        :raises ConsumerStateError: already subscribed.
        :raises BrokerError: the broker cannot be reached or refuses.
        :raises StoreError: Cassandra cannot be reached or refuses; naming the option.
        :raises ClientClosedError: the client was shut down.
        """
        self._check_usable()
        methods = HandlerMethods(handler)
        async with self._changing:
            self._check_usable()
            if self._consumer is not None:
                raise ConsumerStateError("consumer is already subscribed: unsubscribe first")
            if self._config.consumer_problems:
                raise ConfigurationError(self._config.consumer_problems)
            await require_failure_topic(self._config, self._broker)
            await self._tracing.begin()
            consumer = Consumer(
                self._config, self._broker, make_stores(self._config, self._runtime, self._cluster),
                self._producer, methods, self._runtime, self._client_id, self._recent, self._tracing,
                self._state, self._telemetry.events, self._metrics,
            )  # fmt: skip
            await consumer.start()
            self._telemetry.begin(subscribed=True)
            self._consumer = consumer
            self._recent = consumer.recent

    async def unsubscribe(self) -> None:
        """Let running handlers end, commit what is finished, leave the group.

        Takes at most about ``shutdown_timeout``: at 80 % of it handlers are cancelled, at 100 % they
        are left behind, uncommitted; then a second at most for telemetry events. Does nothing when not
        subscribed. Cancelling the wait does not stop the shutdown.
        """
        self._check_process()
        async with self._changing:
            await self._stop_consumer()
            await self._telemetry.rest()
            await self._tracing.flush()

    async def shutdown(self) -> None:
        """Unsubscribe, deliver what is buffered, close all connections. For good; idempotent.

        Handlers that still run may send until they have ended. When the wait is cancelled the consumer
        still stops, but the producer stays open: call it again.
        """
        self._check_process()
        async with self._changing:
            self._closed = True
            try:
                await self._stop_consumer()
            finally:
                if self._consumer is None:
                    # Else the wait was cancelled and handlers still run: the next call ends this.
                    self._sends_closed = True
                    async with contextlib.AsyncExitStack() as closing:  # the last one first
                        closing.push_async_callback(self._tracing.close)
                        closing.callback(self._metrics.close)
                        closing.push_async_callback(self._telemetry.stop)
                        closing.push_async_callback(self._producer.stop)

    async def consumer_state(self) -> str:
        """``unconfigured``, ``configured``, ``running`` or ``shut_down``; see the class."""
        self._check_process()
        return self._state()

    async def assigned_partition_count(self) -> int:
        """How many partitions this client holds; 0 unless running."""
        self._check_process()
        return 0 if self._consumer is None else self._consumer.assigned_partition_count

    async def is_stalled(self) -> bool:
        """Whether a partition has made no progress within ``stall_threshold``; False unless running."""
        self._check_process()
        return self._consumer is not None and self._consumer.is_stalled

    async def snapshot(self) -> Snapshot:
        """What goes on now, from memory; little more than ``state`` when not subscribed."""
        self._check_process()
        inside = self._inside
        return nothing(self._runtime, self._state()) if inside is None else picture(inside)

    async def why(self, topic: str, key: str) -> str:
        """Why nothing more of a key is done now: one sentence, from memory."""
        self._check_process()
        if (inside := self._inside) is None:
            return f"key {shorten(key)}: this client is not subscribed ({self._state()})"
        return why_key(inside, key, topic)

    @property
    def source_system(self) -> str:
        """What this client writes into the ``source-system`` header of its messages."""
        self._check_process()
        return self._config.core.source_system

    async def __aenter__(self) -> Self:
        self._check_usable()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.shutdown()

    def __repr__(self) -> str:
        core = self._config.core
        return (
            f"ProsodyClient(consumer={self._state()!r}, mode={self._config.mode!r}, "
            f"bootstrap_servers={list(core.bootstrap_servers)!r}, group_id={core.group_id!r}, "
            f"subscribed_topics={list(core.subscribed_topics)!r})"
        )

    async def _stop_consumer(self) -> None:
        consumer = self._consumer
        if consumer is None:
            return
        try:
            await consumer.stop()
        finally:
            # A stop that failed has ended too; one whose wait was cancelled goes on, and is waited
            # for by the next call.
            if consumer.stopped:
                self._consumer = None

    @property
    def _inside(self) -> Inside | None:
        return None if self._consumer is None else self._consumer.inside

    def _state(self) -> str:
        if self._closed:
            return "shut_down"
        if self._consumer is not None:
            return "running"
        return "unconfigured" if self._config.consumer_problems else "configured"

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ForkError(
                "ProsodyClient cannot be used after fork: its connections belong to the process that "
                "made it; make a new client in the child"
            )

    def _check_usable(self) -> None:
        self._check_process()
        if self._closed:
            raise ClientClosedError(_CLOSED)
