"""A simulated process: a client with its own broker connection, context variables and handler."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

from prosody import ProsodyClient
from prosody.config import Config
from prosody.errors import BrokerError, PermanentError
from tests.simulation.handlers import behave, choose
from tests.simulation.loop import WHO
from tests.simulation.watch import FAILURES, GROUP
from tests.support import FakeRuntime

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from prosody import Context, Message
    from prosody.broker.memory import MemoryBroker
    from prosody.broker.protocol import (
        BrokerAdmin,
        BrokerProducer,
        BrokerReader,
        ConsumerSettings,
        OffsetAndMetadata,
        ProducerSettings,
        ReaderSettings,
        RebalanceListener,
        Start,
        TopicPartition,
    )
    from tests.simulation.plan import Plan
    from tests.simulation.watch import Watch

SUBSCRIBE_AGAIN_S = 1.0


class ListenerSeen:
    """A rebalance listener whose calls are written down."""

    def __init__(self, name: str, listener: RebalanceListener, watch: Watch) -> None:
        self._name = name
        self._listener = listener
        self._watch = watch
        self._revokes = 0

    def _note(self, what: str, partitions: Any, number: int = -1) -> None:
        for tp in sorted(partitions):
            self._watch.write(self._watch.event(what, self._name, tp=tp, number=number))

    def on_assigned(self, starts: Mapping[TopicPartition, Start]) -> None:
        for tp in sorted(starts):
            event = self._watch.event("assigned", self._name, tp=tp, offset=starts[tp].offset)
            self._watch.write(event)
        self._listener.on_assigned(starts)

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        self._revokes = number = self._revokes + 1
        self._note("revoke", partitions, number)
        await self._listener.on_revoked(partitions)
        self._note("revoked", partitions, number)

    def on_lost(self, partitions: frozenset[TopicPartition]) -> None:
        self._note("lost", partitions)
        self._listener.on_lost(partitions)


class ConsumerSeen:
    """A broker consumer whose beginning and end are written down; a commit may lose its reply."""

    def __init__(
        self, name: str, consumer: Any, watch: Watch, on_call: Callable[[str, str], None] | None
    ) -> None:
        self._name = name
        self._consumer = consumer
        self._watch = watch
        self._on_call = on_call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    async def start(self, topics: list[str], listener: RebalanceListener) -> None:
        self._watch.leaving.discard(self._name)
        await self._consumer.start(topics, ListenerSeen(self._name, listener, self._watch))

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        await self._consumer.commit(offsets)
        if self._on_call is not None:
            self._on_call("reply", self._name)

    async def stop(self) -> None:
        self._watch.leaving.add(self._name)
        self._watch.write(self._watch.event("stopping", self._name))
        await self._consumer.stop()


class MemberBroker:
    """The embedded broker, as one member sees it: under its own client id."""

    def __init__(self, name: str, broker: MemoryBroker, watch: Watch) -> None:
        self._name = name
        self._broker = broker
        self._watch = watch

    def consumer(self, settings: ConsumerSettings) -> Any:
        mine = dataclasses.replace(settings, client_id=self._name)
        on_call = self._broker.cluster.on_call
        return ConsumerSeen(self._name, self._broker.consumer(mine), self._watch, on_call)

    def producer(self, settings: ProducerSettings) -> BrokerProducer:
        return self._broker.producer(dataclasses.replace(settings, client_id=self._name))

    def admin(self) -> BrokerAdmin:
        return self._broker.admin()

    def reader(self, settings: ReaderSettings) -> BrokerReader:
        return self._broker.reader(dataclasses.replace(settings, client_id=self._name))


class Shop:
    """What all handlers of a run share."""

    has_stores = False
    """Whether the members use the stores of the cluster."""

    def __init__(self, plan: Plan, watch: Watch) -> None:
        self.plan = plan
        self.watch = watch
        self.starts: Counter[tuple[str, int, int]] = Counter()
        self.seqs: dict[tuple[TopicPartition, int], int] = {}
        self.quick = False
        """The faults are over: whatever begins now succeeds."""

    def over(self) -> bool:
        return self.watch.closed

    def handler(self, name: str) -> SimulatedHandler:
        """That of one member."""
        return SimulatedHandler(name, self)


class SimulatedHandler:
    """The user's handler in one member."""

    def __init__(self, name: str, shop: Shop) -> None:
        self._name = name
        self._shop = shop

    async def on_message(self, context: Context, message: Message) -> Any:
        shop, watch = self._shop, self._shop.watch
        partition: Any = context._run.partition
        tp = partition.topic_partition
        same = {
            "tp": tp,
            "offset": message.offset,
            "key": message.key,
            "seq": shop.seqs[tp, message.offset],
            "epoch": partition.epoch,
        }
        record = (tp.topic, tp.partition, message.offset)
        starts = shop.starts[record]
        shop.starts[record] += 1
        how, delay_s = "quick", 0.0
        if not shop.quick:
            how, delay_s = choose(shop.plan, *record, starts)
        held = watch.holds(self._name, tp)
        watch.write(
            watch.event(
                "start", self._name, **same, number=partition.uncommitted, held=held, note=how
            )
        )
        verdict = "transient"
        try:
            result = await behave(how, delay_s, context, message, shop.over)
        except PermanentError:
            verdict = "permanent"
            raise
        else:
            verdict = "success"
            return result
        finally:
            if verdict == "transient" and partition.cancelling:
                verdict = "stopped"
            watch.write(watch.event("end", self._name, **same, note=verdict))


class Member:
    """A process of the group."""

    def __init__(
        self, name: str, config: Config, broker: MemoryBroker, shop: Shop, seed: int
    ) -> None:
        self.name = name
        self.state = "up"
        """``up``, ``leaving`` or ``dead``."""
        self._watch = shop.watch
        self._context = contextvars.copy_context()
        self._context.run(WHO.set, name)
        self._handler = shop.handler(name)
        self._client = ProsodyClient.from_parts(
            config, MemberBroker(name, broker, shop.watch), FakeRuntime(seed)
        )
        if shop.has_stores:
            # The client looks for the embedded cluster in its broker, which is one of ours here.
            self._client._cluster = broker.cluster
        self._joining = self._run(self._join())
        self.left: asyncio.Task[None] | None = None

    def leave(self) -> asyncio.Task[None]:
        """End in order."""
        self.state = "leaving"
        self.left = self._run(self._leave())
        return self.left

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        loop = asyncio.get_running_loop()
        return loop.create_task(coroutine, name=f"member {self.name}", context=self._context.copy())

    async def _join(self) -> None:
        self._watch.write(self._watch.event("join", self.name))
        while self.state == "up":
            try:
                await self._client.subscribe(self._handler)
            except BrokerError as error:
                # The client stays usable: a program tries again.
                self._watch.write(self._watch.event("not yet", self.name, note=str(error)))
                await asyncio.sleep(SUBSCRIBE_AGAIN_S)
            else:
                return

    async def _leave(self) -> None:
        await asyncio.wait([self._joining])
        self._watch.write(self._watch.event("leave", self.name))
        await self._client.unsubscribe()
        self._watch.write(self._watch.event("left", self.name))
        await self._client.shutdown()


def configuration(plan: Plan, name: str, topics: list[str], **more: object) -> Config:
    """A member's options, and ``more`` of them."""
    return Config.load(
        {
            "mock": True,
            "group_id": GROUP,
            "subscribed_topics": topics,
            "mode": plan.mode,
            "failure_topic": FAILURES,
            "telemetry_enabled": False,
            "allowed_events": ["order."],
            "max_concurrency": plan.max_concurrency,
            "max_uncommitted": plan.limit_of(name),
            "max_retries": plan.max_retries,
            "retry_base": 0.1,
            "max_retry_delay": 2.0,
            "timeout": plan.timeout_s,
            "shutdown_timeout": plan.shutdown_timeout_s,
            "session_timeout": plan.session_timeout_s,
            "commit_interval": plan.commit_interval_s,
            "poll_interval": plan.poll_interval_s,
            "stall_threshold": 600.0,
            **more,
        },
        {},
    )
