"""One run of the demo: send, handle, watch, and ask the broker what it has."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import Callable

from demo.handler import OrderHandler, StockService
from demo.history import History
from demo.logs import LogWatch
from demo.measure import Facts, measure
from demo.orders import Order, make_orders
from demo.progress import View, Watcher
from demo.settings import (
    COMMIT_INTERVAL_S,
    DEFER_BASE_S,
    DEFER_MAX_DELAY_S,
    FAILING_KEYS,
    HOT_KEY,
    MAX_CONCURRENCY,
    MAX_UNCOMMITTED,
    OUTAGE_SEEN_S,
    PARTITIONS,
    Settings,
)
from prosody import AdminClient, ProsodyClient, ProsodyError
from prosody.broker.memory import MemoryCluster
from tools.look import KafkaLook, Look, LookError, MemoryLook, Offsets
from tools.look_stores import CassandraStoresLook, Left, MemoryStoresLook, StoresLook

_JOIN_LIMIT_S = 60.0
_SEND_LIMIT_S = 30.0
_TICK_S = 0.005
_BATCH_MAX = 200

HandlerFactory = Callable[[History, StockService], object]


class DemoError(Exception):
    """The run could not be carried out; the text says why."""


class Run:
    """One run. ``carry_out`` does it; the rest is there to be looked at when it was cut short."""

    def __init__(
        self,
        settings: Settings,
        view: View,
        logs: LogWatch,
        make_handler: HandlerFactory = OrderHandler,
    ) -> None:
        """
        :param make_handler: makes the handler; tests put a wrong one here, which must be noticed.
        """
        self.settings = settings
        self.orders = make_orders(settings)
        self.count = Counter(order.key for order in self.orders if not order.copy)
        self._planned = self.count.total()
        self._failing = [self.count[key] for key in sorted(FAILING_KEYS)]
        self.history = History()
        self.stock = StockService(
            max(1, self._failing[0] // 4), settings.outage_s, self.history.clock
        )
        self.offsets: dict[int, Offsets] = {}
        """What the broker had after the client was shut down."""
        self._left = Left(0, 0)
        self.left_behind = ""
        self._handler = make_handler(self.history, self.stock)
        self._logs = logs
        # Fresh names: on a Kafka that runs already nothing of an earlier run may be in the way.
        self._topic = self._group = f"prosody-demo-{uuid.uuid4().hex[:8]}"
        self._connection: dict[str, object] = {"mock": True}
        cluster = MemoryCluster.shared()
        self.look: Look = MemoryLook(cluster, self._topic, self._group)
        self._stores: StoresLook = MemoryStoresLook(cluster, self._group)
        self._store_options: dict[str, object] = {}
        servers, cassandra = settings.bootstrap_servers, settings.cassandra
        if servers is not None and cassandra is not None:
            self._connection = {"bootstrap_servers": servers, "mock": False}
            self.look = KafkaLook(servers, self._topic, self._group)
            keyspace = self._topic.replace("-", "_")
            self._stores = CassandraStoresLook(cassandra, keyspace)
            self._store_options = {"cassandra_nodes": cassandra, "cassandra_keyspace": keyspace}
        self.watcher = Watcher(self.history, self.stock, self.look, view, self._planned)

    async def carry_out(self) -> Facts:
        """Do it all. Whatever happens, cancellation included, the client is shut down in order.

        :raises DemoError: the broker refused something or did not answer.
        """
        try:
            return await self._carry_out()
        except (ProsodyError, LookError) as error:
            raise DemoError(str(error)) from error

    async def _carry_out(self) -> Facts:
        admin = AdminClient(**self._connection)
        await admin.create_topic(self._topic, partition_count=PARTITIONS)
        async with contextlib.AsyncExitStack() as stack:
            # Undone from the last to the first: shut down, look what is committed, tidy up.
            stack.push_async_callback(self._tidy_up, admin)
            stack.push_async_callback(self.look.stop)
            await self.look.start()
            stack.push_async_callback(self._last_look)
            client = await stack.enter_async_context(self._client())
            await client.subscribe(self._handler)
            await self._wait_assigned(client)
            watching = asyncio.create_task(self.watcher.watch())
            try:
                await self._send_all(client)
                await self._wait_done()
                await client.unsubscribe()
                self.watcher.saw(await self.look.offsets())
            finally:
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching
        return self._facts()

    async def _last_look(self) -> None:
        self.offsets = await self.look.offsets()
        self._left = await self._stores.left()

    async def _tidy_up(self, admin: AdminClient) -> None:
        try:
            await admin.delete_topic(self._topic)
            await self._stores.drop()
        except (ProsodyError, LookError) as error:
            # What was measured stays true; the person is told what was left behind.
            self.left_behind = f"What was made for this run could not be removed: {error}"

    def _client(self) -> ProsodyClient:
        return ProsodyClient(
            **self._connection,
            **self._store_options,
            group_id=self._group,
            # Messages of a client's own source system are skipped, so the shop is another one.
            source_system="demo-shop",
            subscribed_topics=[self._topic],
            mode="pipeline",
            max_concurrency=MAX_CONCURRENCY,
            max_uncommitted=MAX_UNCOMMITTED,
            defer_base=DEFER_BASE_S,
            defer_max_delay=DEFER_MAX_DELAY_S,
            commit_interval=COMMIT_INTERVAL_S,
            # The copies are sent on purpose: it is the consumer that is to skip them.
            send_cache_enabled=False,
            send_timeout=_SEND_LIMIT_S,
            probe_port=None,
            telemetry_enabled=False,
        )

    async def _wait_assigned(self, client: ProsodyClient) -> None:
        """Wait until all partitions are this client's, so that no latency counts the joining."""
        try:
            async with asyncio.timeout(_JOIN_LIMIT_S):
                # There is no event for it, and it is only the beginning of a demo.
                while await client.assigned_partition_count() < PARTITIONS:  # noqa: ASYNC110
                    await asyncio.sleep(_TICK_S)
        except TimeoutError:
            raise DemoError(
                f"the consumer was not assigned its {PARTITIONS} partitions in {_JOIN_LIMIT_S:g} s"
            ) from None

    async def _send_all(self, client: ProsodyClient) -> None:
        """Send at the settings' pace, whatever the handler does."""
        # The first one connects the producer, which must not start the clock of the others.
        await self._send(client, self.orders[0])
        began = self.history.clock()
        at, rate = 1, self.settings.rate
        while at < len(self.orders):
            due = len(self.orders)
            if rate:
                due = min(due, 1 + int((self.history.clock() - began) * rate))
            batch = self.orders[at : min(due, at + _BATCH_MAX)]
            if batch:
                # Sends that begin in this sequence stay in it, also when they wait together.
                await asyncio.gather(*(self._send(client, order) for order in batch))
                at += len(batch)
            else:
                await asyncio.sleep(_TICK_S)

    async def _send(self, client: ProsodyClient, order: Order) -> None:
        if order.copy:
            self.history.send_copy(order.key, order.seq)
            await client.send(self._topic, order.key, order.payload)
            self.history.copy_was_sent(order.key, order.seq)
            return
        self.history.send(order.key, order.seq)
        await client.send(self._topic, order.key, order.payload)
        self.history.was_sent(order.key, order.seq)

    async def _wait_done(self) -> None:
        """Wait until all is handled, fired and committed, or nothing happens any more."""
        history = self.history
        patience_s = self.settings.stuck_after_s + self.settings.outage_s
        while history.handled < self._planned or history.timers_waiting or self.watcher.lag:
            if history.clock() - history.progress_at > patience_s:
                return
            await asyncio.sleep(_TICK_S)

    def _facts(self) -> Facts:
        return measure(
            self.history.events,
            self.watcher.sights,
            self._left,
            self.offsets,
            planned=self._planned,
            planned_copies=len(self.orders) - self._planned,
            expects_retries=any(self._failing),
            expects_deferred=any(self._failing) and self.settings.outage_s >= OUTAGE_SEEN_S,
            hot_key=HOT_KEY,
            failing_keys=FAILING_KEYS,
            errors_logged=self._logs.errors,
        )
