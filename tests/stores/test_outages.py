"""A real Cassandra that freezes, is killed, and comes back; and what the loop never does meanwhile."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from prosody.errors import StoreDownError, StoreError
from prosody.runtime import SystemRuntime
from prosody.stores.cassandra import CassandraSettings, CassandraStores
from tests.stores.blocking import no_blocking_call
from tests.stores.support import load_all, timer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from prosody.stores.protocol import Segment
    from tools.services import CassandraServer

pytestmark = pytest.mark.real

PATIENCE_S = 60.0
NOW = int(time.time())


@pytest.fixture
async def stores(running_cassandra: CassandraServer) -> AsyncIterator[CassandraStores]:
    found = CassandraStores(
        CassandraSettings(
            nodes=(running_cassandra.address,),
            user="cassandra",
            password="cassandra",
            keyspace="outages",
            request_timeout_s=2.0,
            step_timeout_s=6.0,
        ),
        SystemRuntime(),
    )
    await found.start()
    yield found
    await found.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # of the server, which tells nobody
            await asyncio.sleep(0.02)


class Load:
    """Records and timers without end; remembers what was acknowledged, and how the rest failed."""

    def __init__(self, stores: CassandraStores, segment: Segment) -> None:
        self._stores = stores
        self._segment = segment
        self.recorded: list[bytes] = []
        self.added: list[str] = []
        self.failures: list[StoreError] = []
        self.going_on = True

    async def worker(self, number: int) -> None:
        n = 0
        while self.going_on:
            n += 1
            identity, key = uuid.uuid4().bytes, f"k{number}-{n}"
            try:
                await self._stores.dedup.record(identity)
                self.recorded.append(identity)
                await self._stores.timers.add(self._segment, timer(NOW + n, key))
                self.added.append(key)
            except StoreError as error:
                self.failures.append(error)
                await asyncio.sleep(0.05)


async def nothing_acknowledged_is_lost(stores: CassandraStores, load: Load) -> None:
    seen = await asyncio.gather(*(stores.dedup.seen(each) for each in load.recorded))
    assert all(seen)
    await stores.timers.open(load._segment, 1)
    there = {t.key for t in await load_all(stores, load._segment, page=500)}
    assert set(load.added) <= there


@pytest.mark.parametrize("how", ["frozen", "killed"])
async def test_an_outage_under_load(
    stores: CassandraStores, running_cassandra: CassandraServer, segment: Segment, how: str
) -> None:
    load = Load(stores, segment)
    await stores.timers.open(segment, 1)
    with no_blocking_call():
        workers = [asyncio.create_task(load.worker(number)) for number in range(50)]
        await until(lambda: len(load.added) > 300)
        await asyncio.to_thread(
            running_cassandra.pause if how == "frozen" else running_cassandra.kill
        )
        await until(lambda: stores.problem is not None)
        # From now on nobody waits, and nothing is sent.
        requests = stores.requests
        for _ in range(20):
            with pytest.raises(StoreDownError, match="counts as down"):
                await stores.dedup.seen(uuid.uuid4().bytes)
            with pytest.raises(StoreDownError):
                await stores.timers.add(segment, timer(NOW, uuid.uuid4().hex))
        assert stores.requests == requests
        # All who waited when it happened have been told.
        await until(lambda: len(load.failures) >= len(workers))
        await asyncio.to_thread(
            running_cassandra.resume if how == "frozen" else running_cassandra.start
        )
        await until(lambda: stores.problem is None)
        added = len(load.added)
        await until(lambda: len(load.added) > added + 300)
        load.going_on = False
        await asyncio.gather(*workers)
    assert all(error.retriable for error in load.failures)
    await nothing_acknowledged_is_lost(stores, load)


async def test_a_call_ends_within_its_deadline_and_a_cancelled_one_at_once(
    stores: CassandraStores, running_cassandra: CassandraServer, segment: Segment
) -> None:
    await stores.timers.open(segment, 1)
    assert stores._link is not None
    groups = stores._link.groups
    await asyncio.to_thread(running_cassandra.pause)
    waiting = [stores.dedup.seen(uuid.uuid4().bytes) for _ in range(5)]
    leaving = asyncio.create_task(stores.timers.add(segment, timer(NOW)))
    await until(lambda: len(groups._flights) > 0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert stores.problem is None, "it was not the outage that ended it"
    async with asyncio.timeout(PATIENCE_S):
        found = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, StoreError) and each.retriable for each in found)
    await asyncio.to_thread(running_cassandra.resume)
    await until(lambda: stores.problem is None and not groups._flights)
    await stores.timers.add(segment, timer(NOW))
    assert await load_all(stores, segment) == [timer(NOW)]


async def test_stopping_while_it_is_away(
    stores: CassandraStores, running_cassandra: CassandraServer
) -> None:
    await asyncio.to_thread(running_cassandra.pause)
    waiting = stores.dedup.seen(uuid.uuid4().bytes)
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        await stores.stop()
    with pytest.raises(StoreError, match="stopped"):
        await waiting
