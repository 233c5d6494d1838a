"""An outage is told by all partitions at once, and stays a few lines in the log."""

from __future__ import annotations

import asyncio
import logging

import pytest

from prosody import ProsodyClient
from prosody.broker.memory import MemoryBroker, MemoryCluster
from prosody.config import Config
from prosody.deferral.uncertain import Uncertain
from prosody.errors import StoreError
from prosody.observe.storm import BURST, PER_S, Storms
from prosody.stores.memory import MemoryStoreState
from prosody.stores.protocol import DeferredKind
from tests.support import FakeRuntime

PARTITIONS = 200
OUTAGE_S = 8.0


class Silent:
    async def on_message(self, context: object, message: object) -> None: ...


async def test_a_store_that_is_away_when_partitions_come(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "prosody.durable")
    runtime, cluster = FakeRuntime(), MemoryCluster()
    cluster.create_topic("orders", PARTITIONS)
    store = cluster.attached(MemoryStoreState)
    store.outage("no node answers")
    values = {
        "mock": True, "group_id": "g", "subscribed_topics": "orders", "telemetry_enabled": False,
        "source_system": "s",
    }  # fmt: skip
    client = ProsodyClient.from_parts(
        Config.load(values, {}),
        MemoryBroker(cluster, runtime=runtime, auto_create_topics=False),
        runtime,
    )
    await client.subscribe(Silent())
    await asyncio.sleep(OUTAGE_S)
    lines = [r.getMessage() for r in caplog.records if r.name == "prosody.durable"]
    assert BURST <= len(lines) <= BURST + OUTAGE_S * PER_S
    assert "more like this in the last" in lines[-1]
    store.restore()
    await asyncio.sleep(30.0)
    lines = [r.getMessage() for r in caplog.records if r.name == "prosody.durable"][len(lines) :]
    assert lines
    assert len(lines) <= BURST + 30.0 * PER_S
    await client.shutdown()


async def test_what_may_still_be_stored(caplog: pytest.LogCaptureFixture) -> None:
    async def refused(*_: object) -> None:
        raise StoreError("away", retriable=True)

    runtime = FakeRuntime()
    storms = Storms(runtime)
    partitions = [Uncertain(refused, runtime, storms) for _ in range(PARTITIONS)]
    for uncertain in partitions:
        uncertain.add(DeferredKind.MESSAGE, "k", 1)
        uncertain.finish(DeferredKind.MESSAGE, "k", 1)
        await uncertain.remove(DeferredKind.MESSAGE, "k", 1)
        assert uncertain.problem is not None
        uncertain.close()
    assert len([r for r in caplog.records if "tried again" in r.getMessage()]) == BURST
