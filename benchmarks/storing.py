"""Stores that count their calls, and a client of the embedded broker over them.

The broker is always the embedded one, so that what is measured is the library and its stores.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

from benchmarks.path.places import memory_place
from prosody import client as client_module
from prosody.broker.memory import MemoryBroker
from prosody.client import ProsodyClient
from prosody.config import Config
from prosody.runtime import SystemRuntime
from prosody.stores.memory import MemoryStores, MemoryStoreState
from tools.look_stores import CassandraStoresLook, MemoryStoresLook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from benchmarks.path.places import Place
    from prosody.stores.protocol import Stores
    from tools.look_stores import StoresLook

GROUP = "bench-group"


class Counting:
    """One store: notes each call by its name, and passes it on."""

    def __init__(self, name: str, store: Any, calls: Counter[str]) -> None:
        self._name = name
        self._store = store
        self._calls = calls

    def __getattr__(self, method: str) -> Any:
        inner = getattr(self._store, method)
        if not callable(inner):
            return inner
        calls, name = self._calls, f"{self._name}.{method}"

        def call(*values: Any, **named: Any) -> Any:
            calls[name] += 1
            return inner(*values, **named)

        # Kept, so that the next call finds it without coming here.
        self.__dict__[method] = call
        return call


class CountedStores:
    """The three stores of a consumer, counted."""

    def __init__(self, stores: Stores) -> None:
        self.inner = stores
        self.calls: Counter[str] = Counter()
        self.timers: Any = Counting("timers", stores.timers, self.calls)
        self.deferred: Any = Counting("deferred", stores.deferred, self.calls)
        self.dedup: Any = Counting("dedup", stores.dedup, self.calls)

    @property
    def keeps_records(self) -> bool:
        return self.inner.keeps_records

    @property
    def problem(self) -> str | None:
        return self.inner.problem

    async def start(self) -> None:
        await self.inner.start()

    async def stop(self) -> None:
        await self.inner.stop()


@dataclass
class Bench:
    """An embedded broker with a topic, and the stores under measurement."""

    name: str
    place: Place
    stores: CountedStores
    look: StoresLook
    """Counts what is stored, by itself."""
    requests: Counter[str] = field(default_factory=Counter)
    """``sent``: requests to Cassandra."""
    held: int = 0
    """Timers held in memory, for a benchmark to note."""

    @contextlib.asynccontextmanager
    async def subscribed(self, handler: object, **options: Any) -> AsyncIterator[None]:
        """A client in pipeline mode that consumes the topic, over the counted stores."""
        values: dict[str, Any] = {
            "mock": True,
            "group_id": GROUP,
            "subscribed_topics": self.place.topic,
            "source_system": "me",
            "telemetry_enabled": False,
            **options,
        }
        client = ProsodyClient.from_parts(
            Config.load(values, {}), self.place.broker, SystemRuntime()
        )
        # A client of the embedded broker would take the stores that belong to it.
        with mock.patch.object(client_module, "make_stores", return_value=self.stores):
            await client.subscribe(handler)
        try:
            yield
        finally:
            await client.shutdown()


@contextlib.asynccontextmanager
async def opened(cassandra: str | None) -> AsyncIterator[Bench]:
    """A bench over stores in memory, or over a keyspace of its own in Cassandra."""
    place = memory_place()
    bench = _memory(place) if cassandra is None else _cassandra(place, cassandra)
    with _counted_requests(bench.requests):
        try:
            yield bench
        finally:
            await bench.look.drop()


def _memory(place: Place) -> Bench:
    assert isinstance(place.broker, MemoryBroker)
    cluster = place.broker.cluster
    stores = MemoryStores(
        cluster.attached(MemoryStoreState), runtime=SystemRuntime(), dedup_ttl_s=3600.0
    )
    return Bench("memory", place, CountedStores(stores), MemoryStoresLook(cluster, GROUP))


def _cassandra(place: Place, address: str) -> Bench:
    # Imported here: the driver takes a while, and the stores in memory do not need it.
    from prosody.stores.cassandra import CassandraSettings, CassandraStores

    # Whoever measures wants no lines in between.
    logging.getLogger("cassandra").setLevel(logging.ERROR)
    keyspace = f"bench_{uuid.uuid4().hex[:8]}"
    stores = CassandraStores(
        CassandraSettings(nodes=(address,), keyspace=keyspace), SystemRuntime()
    )
    look = CassandraStoresLook(address, keyspace)
    return Bench("Cassandra", place, CountedStores(stores), look)


@contextlib.contextmanager
def _counted_requests(requests: Counter[str]) -> Iterator[None]:
    from prosody.stores.cassandra.bridge import Bridge

    start = Bridge.start

    def counting(self: Bridge, *values: Any) -> None:
        requests["sent"] += 1
        start(self, *values)

    with mock.patch.object(Bridge, "start", counting):
        yield
