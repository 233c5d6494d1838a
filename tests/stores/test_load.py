"""Much at once on a real Cassandra: no call blocks the loop, and what belongs together travels together."""

from __future__ import annotations

import asyncio
import gc
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from cassandra.cluster import ResponseFuture

from prosody.runtime import SystemRuntime
from prosody.stores.cassandra import CassandraSettings, CassandraStores
from prosody.stores.protocol import DeferredKind
from tests.stores.blocking import no_blocking_call
from tests.stores.support import deferred, hashes, load_all, timer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from prosody.stores.protocol import Segment

pytestmark = pytest.mark.real

NOW = int(time.time())


@pytest.fixture
async def stores(cassandra_contact: str, keyspace: str) -> AsyncIterator[CassandraStores]:
    settings = CassandraSettings(nodes=(cassandra_contact,), keyspace=keyspace)
    found = CassandraStores(settings, SystemRuntime())
    await found.start()
    yield found
    await found.stop()


async def test_no_call_blocks_the_loop(stores: CassandraStores, segment: Segment) -> None:
    """More at once than the driver would take, many pages, and everything else."""
    kind = DeferredKind.MESSAGE
    with no_blocking_call():
        await stores.timers.open(segment, 1)
        keys = [f"k{n}" for n in range(6000)]
        await asyncio.gather(
            *(stores.deferred.defer(segment, kind, key, deferred(1), "e") for key in keys)
        )
        # More than a page (5,000 rows).
        assert len(await hashes(stores, segment, kind)) == 6000
        await asyncio.gather(
            *(stores.timers.replace(segment, timer(NOW, key)) for key in keys[:500]),
            *(stores.dedup.seen(uuid.uuid4().bytes) for _ in range(10_000)),
        )
        assert len(await load_all(stores, segment, page=200)) == 500
        await asyncio.gather(
            *(stores.deferred.advance(segment, kind, key, 1) for key in keys[:500])
        )


async def test_requests_that_have_ended_leave_nothing_to_the_collector(
    stores: CassandraStores,
) -> None:
    """The driver keeps a request's timer until its time comes; rows and values must not wait for that."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(30):
            await asyncio.gather(*(stores.dedup.seen(uuid.uuid4().bytes) for _ in range(50)))
        left = [found for found in gc.get_objects() if type(found) is ResponseFuture]
    finally:
        gc.enable()
    assert len(left) <= 5, "more than what the driver's thread has just in its hands"


async def test_the_guard_sees_a_blocking_call(stores: CassandraStores) -> None:
    session: Any = stores._session
    with pytest.raises(AssertionError, match=r"Condition\.wait"), no_blocking_call():
        session.session.execute("SELECT release_version FROM system.local")


async def test_a_thousand_look_ups_of_one_turn(stores: CassandraStores) -> None:
    ids = [uuid.uuid4().bytes for _ in range(1000)]
    before = stores.requests
    await asyncio.gather(*(stores.dedup.record(each) for each in ids))
    assert stores.requests - before == 20
    assert all(await asyncio.gather(*(stores.dedup.seen(each) for each in ids)))
    assert stores.requests - before == 40
