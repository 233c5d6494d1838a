"""One subscription: assembles the consume path, starts it, ends it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING

from prosody.consume.assignment import Assignment
from prosody.consume.committer import Committer
from prosody.consume.counts import Counts
from prosody.consume.filters import Filters
from prosody.consume.inside import Inside
from prosody.consume.keeping import Keeping
from prosody.consume.lanes import Lanes
from prosody.consume.metering import Metering
from prosody.consume.parts import consumer_settings, dead_letter_writer, handler_spans
from prosody.consume.poller import Poller
from prosody.consume.probes import Probes
from prosody.consume.shared import Shared
from prosody.consume.steps import Steps
from prosody.consume.watch import Watch
from prosody.middleware.stacks import build
from prosody.observe.metrics import Metrics
from prosody.observe.storm import Storms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prosody.broker.protocol import Broker
    from prosody.config import Config
    from prosody.middleware.deduplication import Recent
    from prosody.model.handler import HandlerMethods
    from prosody.observe.tracing import Tracing
    from prosody.produce import Producer
    from prosody.runtime import Runtime
    from prosody.stores.protocol import Stores
    from prosody.telemetry.buffer import Buffer

_log = logging.getLogger("prosody.consumer")

_RESTART_DELAY_S = 1.0
"""Pause before a background loop that failed by a fault of ours starts again."""


class Consumer:
    """A running subscription of one handler. Made for one start and one stop."""

    def __init__(
        self,
        config: Config,
        broker: Broker,
        stores: Stores | None,
        producer: Producer,
        methods: HandlerMethods,
        runtime: Runtime,
        client_id: str,
        recent: Recent | None = None,
        tracing: Tracing | None = None,
        state: Callable[[], str] = lambda: "running",
        events: Buffer | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """Must be called in the event loop, and the context variables, that handlers are to run in.

        :param stores: not started yet; None when nothing can be kept.
        :param recent: the message ids that an earlier subscription of this client remembered.
        :param tracing: where spans go; None makes none.
        :param state: what the client calls its state, for those who look.
        :param events: where telemetry events go; None reports nothing.
        :param metrics: those of the client; None makes some of its own.
        """
        group_id = config.core.group_id
        assert group_id is not None, "checked before a consumer is made"
        options = config.consumer
        self._config = config
        self._runtime = runtime
        member = self._broker_consumer = broker.consumer(consumer_settings(config, client_id))
        self._assignment = Assignment(options.shutdown_timeout)
        self._committer = Committer(member, self._assignment, options.commit_interval, runtime)
        self._poller = Poller(member, self._assignment, options.poll_interval, runtime)
        storms, counts = Storms(runtime), Counts()
        metrics = metrics or Metrics(runtime, group_id)
        self._committer.took = metrics.committed
        spans = handler_spans(config, tracing)
        if spans is not None:
            self._poller.each_turn = spans.look
        dead_letters = dead_letter_writer(config, producer, runtime, storms, spans)
        self._keeping = None if stores is None else Keeping(
            config, stores, broker, member, methods, client_id, runtime, storms, counts, events
        )  # fmt: skip
        kept = None if self._keeping is None else self._keeping.kept
        self._stack = build(
            config, methods, runtime, storms, self._torn_down, dead_letters, kept, recent, spans,
            events,
        )  # fmt: skip
        deduplication = self._stack.deduplication
        steps = Steps(methods, config.extra.session_timeout, runtime)
        steps.lag = metrics.late
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()
        self._lanes = Lanes(
            self._stack, steps, loop, context, options.max_concurrency, self._torn_down
        )
        self._poller.hold, self._poller.begin = self._lanes.hold, self._lanes.begin
        self._watch = Watch(
            self._broker_consumer,
            self._assignment,
            self._poller,
            self._stack.scheduler,
            steps,
            storms,
            self._stack.timeout.lanes,
            options.stall_threshold,
            runtime,
        )
        shared = Shared(
            runtime=runtime,
            loop=loop,
            context=context,
            filters=Filters(group_id, config.core.allowed_events),
            stack=self._stack,
            max_uncommitted=options.max_uncommitted,
            want_records=self._poller.want_records,
            failed=self._assignment.restart,
            durables=None if self._keeping is None else self._keeping.durables,
            admitted=None if deduplication is None else deduplication.admitted,
            undecodable=storms.of(logging.getLogger("prosody.partition")),
            skipped=storms.of(logging.getLogger("prosody.partition")),
            counts=counts,
        )
        self.inside = Inside(
            runtime,
            self._assignment,
            self._broker_consumer,
            self._stack,
            stores,
            state,
            self.not_ready,
            self.stalled,
        )
        """For those who look and touch nothing."""
        self._metering = Metering(metrics, self.inside, counts, dead_letters)
        self._watch.each_look = self._metering.look
        self.probes = Probes(config, self, self.inside, metrics)
        self._assignment.connect(shared, self._committer, self._broker_consumer)
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping: asyncio.Task[None] | None = None

    @property
    def recent(self) -> Recent | None:
        """The message ids that are remembered, for the next subscription; None where none are."""
        deduplication = self._stack.deduplication
        return None if deduplication is None else deduplication.recent

    @property
    def assigned_partition_count(self) -> int:
        """Partitions held now."""
        return len(self._assignment)

    @property
    def is_stalled(self) -> bool:
        """Whether a partition's oldest record, or the poll loop, stands still too long."""
        return bool(self.stalled())

    def stalled(self) -> list[str]:
        """What stands still too long and why, a text each; empty when this consumer is well."""
        return self._watch.stalled()

    def not_ready(self) -> str | None:
        """Why this consumer handles no messages at present; None when it does, or would."""
        if not self._tasks:
            return "not running"
        if self._stopping is not None:
            return "shutting down"
        problem = self._broker_consumer.problem
        if problem is not None:
            return f"connection to Kafka lost: {problem}"
        return None if len(self._assignment) else "no partitions assigned"

    def store_problems(self) -> list[str]:
        """What does not work at present of timers, deferral and deduplication, a text each.

        Messages that need none of them are handled all the same, so this makes nobody unready.
        """
        keeping = self._keeping
        problem = None if keeping is None else keeping.stores.problem
        of_partitions = (
            f"{partition.name}: {partition.durable.problem}"
            for partition in self._assignment.partitions()
            if partition.durable is not None and partition.durable.problem is not None
        )
        return [*([] if problem is None else [problem]), *of_partitions]

    def unreadable(self) -> list[str]:
        """Partitions that give no records, and why, a text each; others go on."""
        found = sorted(self._broker_consumer.unreadable.items())
        return [f"topic {tp.topic!r} partition {tp.partition}: {why}" for tp, why in found]

    async def start(self) -> None:
        """Join the group and begin to consume. When it raises, nothing is left running."""
        try:
            # First: a port that is taken is found before the group hears of this member.
            await self.probes.start()
            if self._keeping is not None:
                await self._keeping.stores.start()
            elif self._config.mode == "pipeline":
                _log.info(
                    "no cassandra_nodes: nothing is deferred, failing messages are tried again in "
                    "place; there are no timers, and ids of messages are remembered in memory only"
                )
            await self._broker_consumer.start(
                list(self._config.core.subscribed_topics), self._assignment
            )
        except BaseException:
            # Whatever went wrong, cancellation included, the half-made member must not linger.
            await self._disconnect()
            raise
        self._metering.begin()
        loop = asyncio.get_running_loop()
        for name, run in (
            ("poller", self._poller.run),
            ("committer", self._committer.run),
            ("watch", self._watch.run),
        ):
            self._tasks.append(loop.create_task(self._supervise(name, run), name=f"prosody-{name}"))

    async def stop(self) -> None:
        """Drain, commit, leave the group. A second call waits for the first one's end.

        Cancelling the wait does not stop the shutdown: it goes on in the background.
        """
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(
                self._stop(), name="prosody-stop"
            )
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        # The poller goes on while handlers end: it shows the group that this member is alive.
        try:
            await self._assignment.close()
        finally:
            # Whatever went wrong before, nothing may be left running.
            for task in self._tasks:
                task.cancel()
            try:
                if self._tasks:
                    await asyncio.wait(self._tasks)
            finally:
                self._lanes.close()
                self._stack.timeout.close()
                await self._disconnect()

    async def _disconnect(self) -> None:
        try:
            self._metering.end()
            await self._broker_consumer.stop()
        finally:
            try:
                if self._keeping is not None:
                    await self._keeping.stop()
            finally:
                await self.probes.stop()

    @property
    def stopped(self) -> bool:
        """Whether ``stop`` has come to its end, well or not."""
        return self._stopping is not None and self._stopping.done()

    def _torn_down(self) -> bool:
        """Whether the event loop's end is cancelling all tasks.

        Our loops are cancelled by nobody else before all partitions are closed, and the stop itself
        never is.
        """
        stopping = self._stopping
        return any(task.cancelling() for task in self._tasks) or (
            stopping is not None and stopping.cancelling() > 0
        )

    async def _supervise(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Keep a background loop going: a fault in it must not quietly stop consumption."""
        while True:
            try:
                await run()
            except Exception:  # noqa: BLE001
                # A fault of ours. Its state lives in the assignment, so starting again loses nothing.
                _log.critical(
                    "internal fault in the %s, starting it again; please report this",
                    name,
                    exc_info=True,
                )
                await self._runtime.sleep(_RESTART_DELAY_S)
