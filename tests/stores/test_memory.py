"""The stores in memory: whose content it is, its limits, and faults on demand."""

from __future__ import annotations

import asyncio
import threading
import uuid
from typing import TYPE_CHECKING

import pytest

from prosody.broker.memory import MemoryCluster
from prosody.config import Config
from prosody.errors import StoreDownError, StoreError
from prosody.runtime import SystemRuntime
from prosody.stores.factory import make_stores
from prosody.stores.memory import MemoryStores, MemoryStoreState
from prosody.stores.memory import dedup as dedup_module
from prosody.stores.protocol import Deferred, DeferredKind, Segment
from tests.stores.support import APP, load_all, timer
from tests.support import FakeRuntime, run_virtual

if TYPE_CHECKING:
    from prosody.stores.protocol import Stores

SEGMENT = Segment("g", "t", 0)


def fresh(state: MemoryStoreState | None = None) -> MemoryStores:
    return MemoryStores(state or MemoryStoreState(), runtime=FakeRuntime(), dedup_ttl_s=60.0)


def config(**options: object) -> Config:
    return Config.load({"bootstrap_servers": "x:1", "group_id": "g"} | options, {})


def test_which_stores_a_configuration_gets() -> None:
    from prosody.stores.cassandra import CassandraStores

    runtime, cluster = SystemRuntime(), MemoryCluster()
    assert make_stores(config(), runtime, None) is None
    one = make_stores(config(mock=True), runtime, cluster)
    other = make_stores(config(mock=True), runtime, cluster)
    assert isinstance(one, MemoryStores)
    assert isinstance(other, MemoryStores)
    assert one.state is other.state is cluster.attached(MemoryStoreState)
    assert MemoryCluster().attached(MemoryStoreState) is not one.state
    given = config(cassandra_nodes="db:9042", cassandra_password="s3cret", cassandra_user="u")
    stores = make_stores(given, runtime, None)
    assert isinstance(stores, CassandraStores)
    assert "s3cret" not in repr(stores._settings)


async def test_making_stores_does_nothing_and_using_them_unstarted_says_so() -> None:
    stores: Stores | None = make_stores(
        config(cassandra_nodes="nowhere.invalid"), SystemRuntime(), None
    )
    assert stores is not None
    assert stores.problem is None
    with pytest.raises(StoreError, match="not started"):
        await stores.dedup.seen(uuid.uuid4().bytes)
    await stores.stop()


def test_records_expire() -> None:
    async def play() -> None:
        stores = fresh()
        one, two = uuid.uuid4().bytes, uuid.uuid4().bytes
        await stores.dedup.record(one)
        await asyncio.sleep(59)
        assert await stores.dedup.seen(one)
        await stores.dedup.record(two)
        await asyncio.sleep(1)
        assert not await stores.dedup.seen(one)
        assert await stores.dedup.seen(two)
        await stores.dedup.record(two)
        assert list(stores.state.seen) == [two], "what has expired takes no room"

    run_virtual(play())


def test_records_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup_module, "MOST_RECORDS", 3)

    async def play() -> None:
        stores = fresh()
        ids = [uuid.uuid4().bytes for _ in range(5)]
        for each in ids:
            await stores.dedup.record(each)
        assert [await stores.dedup.seen(each) for each in ids] == [False] * 2 + [True] * 3

    run_virtual(play())


def test_an_outage_and_faults_on_demand() -> None:
    async def play() -> None:
        stores = fresh()
        state = stores.state
        await stores.timers.add(SEGMENT, timer(5))
        state.outage()
        assert stores.problem == "the embedded store cannot be reached"
        with pytest.raises(StoreDownError):
            await stores.timers.add(SEGMENT, timer(6))
        state.restore()
        assert stores.problem is None

        called = []

        def before(name: str) -> None:
            called.append(name)
            raise StoreError("injected", retriable=True)

        state.on_call = before
        with pytest.raises(StoreError, match="injected"):
            await stores.timers.add(SEGMENT, timer(6))
        state.on_call = None
        assert called == ["timers.add"]
        assert await load_all(stores, SEGMENT) == [timer(5)]
        state.on_done = before
        with pytest.raises(StoreError, match="injected"):
            await stores.timers.add(SEGMENT, timer(6))
        state.on_done = None
        assert await load_all(stores, SEGMENT) == [timer(5), timer(6)], "it had its effect"

        async def slow() -> None:
            await asyncio.sleep(7)

        state.on_call = lambda name: slow()
        began = asyncio.get_running_loop().time()
        assert await stores.timers.times(SEGMENT, "k", APP) == [5, 6]
        assert asyncio.get_running_loop().time() - began == 7

    run_virtual(play())


def test_every_call_can_be_made_to_fail() -> None:
    async def play() -> None:
        stores = fresh()
        entry = Deferred(1, 2, {})
        t, d, kind = stores.timers, stores.deferred, DeferredKind.MESSAGE
        calls = {
            "timers.open": lambda: t.open(SEGMENT, 1),
            "timers.load": lambda: t.load(SEGMENT, None, 9, 9),
            "timers.add": lambda: t.add(SEGMENT, timer(1)),
            "timers.remove": lambda: t.remove(SEGMENT, timer(1).place),
            "timers.times": lambda: t.times(SEGMENT, "k", APP),
            "timers.replace": lambda: t.replace(SEGMENT, timer(1)),
            "timers.clear": lambda: t.clear(SEGMENT, "k", APP),
            "timers.passed": lambda: t.passed(SEGMENT, 1),
            "deferred.defer": lambda: d.defer(SEGMENT, kind, "k", entry, "e"),
            "deferred.append": lambda: d.append(SEGMENT, kind, "k", entry),
            "deferred.queue": lambda: d.queue(SEGMENT, kind, "k"),
            "deferred.failed": lambda: d.failed(SEGMENT, kind, "k", 2, "e"),
            "deferred.advance": lambda: d.advance(SEGMENT, kind, "k", 1),
            "deferred.positions": lambda: d.positions(SEGMENT, kind, "k"),
            "deferred.drop": lambda: d.drop(SEGMENT, kind, "k"),
            "deferred.hashes": lambda: anext(aiter(d.hashes(SEGMENT, kind))),
            "dedup.seen": lambda: stores.dedup.seen(uuid.uuid4().bytes),
            "dedup.record": lambda: stores.dedup.record(uuid.uuid4().bytes),
        }
        for name, call in calls.items():

            def fail(called: str, name: str = name) -> None:
                assert called == name
                raise StoreError(name, retriable=True)

            stores.state.on_call = fail
            with pytest.raises(StoreError, match=name):
                await call()

    run_virtual(play())


def test_clients_on_several_threads_share_a_state() -> None:
    state = MemoryStoreState()

    def work(number: int) -> None:
        async def play() -> None:
            stores = MemoryStores(state, runtime=SystemRuntime(), dedup_ttl_s=60.0)
            for n in range(300):
                await stores.timers.add(SEGMENT, timer(n, f"{number}"))
                if n % 3 == 0:
                    await stores.timers.remove(SEGMENT, timer(n, f"{number}").place)

        asyncio.run(play())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state.timers[SEGMENT].by_time.check_valid()
    state.timers[SEGMENT].by_key.check_valid()
    assert len(state.timers[SEGMENT].by_time) == 4 * 200
