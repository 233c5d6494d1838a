"""What finished ahead travels with the commit: from client to client, over the embedded broker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from prosody import ProsodyClient
from prosody._core.offset_set import decode_finished
from prosody.broker.memory import MemoryBroker, MemoryCluster
from prosody.broker.protocol import OffsetAndMetadata, TopicPartition
from prosody.config import Config
from tests.support import FakeRuntime, settle

if TYPE_CHECKING:
    from prosody import Context, Message

TP = TopicPartition("orders", 0)
COUNT = 40


class Scene:
    """A topic of one partition and clients one after the other; what a handler begins is noted."""

    def __init__(self, max_metadata_chars: int = 4096) -> None:
        self.began: list[int] = []
        self.ended: list[int] = []
        self.stuck: set[int] = set()
        self.cluster = MemoryCluster(max_metadata_chars=max_metadata_chars)
        self.cluster.create_topic("orders", 1)
        self.broker = MemoryBroker(self.cluster, runtime=FakeRuntime(), auto_create_topics=False)

    def client(self) -> ProsodyClient:
        values = {
            "mock": True, "group_id": "g", "subscribed_topics": "orders", "mode": "pipeline",
            "telemetry_enabled": False, "shutdown_timeout": 10.0, "source_system": "s",
            "max_uncommitted": 2 * COUNT, "max_concurrency": COUNT,
        }  # fmt: skip
        return ProsodyClient.from_parts(Config.load(values, {}), self.broker, FakeRuntime())

    async def on_message(self, _: Context, message: Message) -> None:
        self.began.append(message.offset)
        if message.offset in self.stuck:
            await asyncio.Event().wait()
        self.ended.append(message.offset)

    def put(self, count: int) -> None:
        with self.cluster.lock:
            log = self.cluster.logs("orders")[0]
            for _ in range(count):
                log.append(0, b"%d" % log.end, b"{}", ())

    @property
    def committed(self) -> OffsetAndMetadata:
        return self.cluster.group("g").committed[TP]


async def one_after_the_other(scene: Scene) -> None:
    """A client that handles all but some, then another that handles the rest."""
    scene.put(COUNT)
    for stuck in (set(range(0, COUNT, 3)), set()):
        scene.stuck = stuck
        client = scene.client()
        await client.subscribe(scene)
        await asyncio.sleep(1.0)
        await client.unsubscribe()


async def test_a_restart_in_order_runs_nothing_twice() -> None:
    scene = Scene()
    await one_after_the_other(scene)
    assert sorted(scene.ended) == list(range(COUNT))
    assert len(scene.began) == COUNT + len(range(0, COUNT, 3))
    assert scene.committed == (COUNT, "")


async def test_a_partition_that_moves_between_running_members_runs_nothing_twice() -> None:
    scene = Scene()
    scene.cluster.add_partitions("orders", 2)
    scene.put(COUNT)
    scene.stuck = set(range(0, COUNT, 2))
    first, second = scene.client(), scene.client()
    await first.subscribe(scene)
    await settle()
    for client in (first, second) * 2:  # it moves to who stays, and back
        other = second if client is first else first
        if await other.consumer_state() != "running":
            await other.subscribe(scene)
        await asyncio.sleep(1.0)
        await client.unsubscribe()
        await asyncio.sleep(1.0)
    scene.stuck = set()
    await first.unsubscribe()
    await second.unsubscribe()
    await first.subscribe(scene)
    await asyncio.sleep(1.0)
    await first.unsubscribe()
    assert sorted(scene.ended) == list(range(COUNT))


async def test_what_had_finished_is_committed_while_the_head_is_stuck() -> None:
    scene = Scene()
    scene.put(5)
    scene.stuck = {0, 3}
    client = scene.client()
    await client.subscribe(scene)
    await asyncio.sleep(10.0)
    offset, metadata = scene.committed
    assert (offset, decode_finished(metadata, 0)) == (0, [(1, 3), (4, 5)])
    scene.stuck = set()
    await client.unsubscribe()


@pytest.mark.parametrize(("most", "twice"), [(4096, 0), (14, 0), (13, 26)])
async def test_a_broker_that_takes_less_costs_repetitions_and_nothing_else(
    most: int, twice: int, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(max_metadata_chars=most)
    await one_after_the_other(scene)
    assert set(scene.ended) == set(range(COUNT))
    assert scene.committed == (COUNT, "")
    assert len(scene.ended) - COUNT == twice
    assert caplog.text.count("refuses commit metadata") == (twice > 0)
    assert "commit failed" not in caplog.text


@pytest.mark.parametrize("metadata", ["", "node-7", "1", "1abcdefghijk"])
async def test_metadata_of_others_is_not_used(metadata: str) -> None:
    scene = Scene()
    scene.put(6)
    scene.cluster.group("g").committed[TP] = OffsetAndMetadata(2, metadata)
    client = scene.client()
    await client.subscribe(scene)
    await asyncio.sleep(10.0)
    assert (scene.began, scene.committed) == ([2, 3, 4, 5], (6, ""))
    await client.unsubscribe()
