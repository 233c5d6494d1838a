"""``client.why``: one sentence about a key, in each situation that it can be in, over virtual time."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from prosody import ForkError
from prosody.stores.memory import MemoryStoreState
from tests.client.scene import Scene, played
from tests.client.support import Place, run_simulated

if TYPE_CHECKING:
    from prosody import Context, Message


def test_its_handler_runs() -> None:
    async def main(scene: Scene) -> None:
        await scene.begin(b"a")
        await asyncio.sleep(11.0)
        assert await scene.why("a") == (
            "topic 'orders' partition 0 offset 0 key 'a': its handler runs (attempt 1), for 12 s so far"
        )

    played(main)


def test_it_waits_for_a_permit() -> None:
    async def main(scene: Scene) -> None:
        await scene.begin(b"a", b"b")
        assert (await scene.why("b")).endswith("offset 1 key 'b': it waits for a permit (1 in use)")

    played(main, max_concurrency=1)


def test_its_messages_wait_behind_its_first_one() -> None:
    async def main(scene: Scene) -> None:
        await scene.begin(b"a", b"a", b"a")
        assert "offset 0 key 'a': its handler runs" in await scene.why("a")
        (partition,) = (await scene.client.snapshot()).partitions
        assert (partition.uncommitted, partition.queued) == (3, 2)

    played(main)


def test_it_is_in_backoff() -> None:
    async def main(scene: Scene) -> None:
        scene.failing = True
        await scene.begin(b"a")
        text = await scene.why("a")
        assert "key 'a': it is in backoff after attempt 1," in text
        assert text.endswith("s): ValueError: a bug of the handler")

    played(main, defer_enabled=False, retry_base=50.0, max_retry_delay=100.0)


def test_it_is_deferred() -> None:
    async def main(scene: Scene) -> None:
        scene.failing = True
        await scene.begin(b"a")
        text = await scene.why("a")
        assert "partition 0 key 'a': its messages are deferred until 20" in text
        scene.place.cluster.attached(MemoryStoreState).outage("no node answers")
        assert (await scene.why("a")).endswith(
            "; what is kept does not work at present: no node answers"
        )
        scene.place.cluster.attached(MemoryStoreState).restore()

    played(main, defer_base=60.0)


def test_it_takes_too_much_handler_time() -> None:
    async def main(scene: Scene) -> None:
        scene.takes_s = 60.0
        await scene.begin(b"a", b"a")
        await asyncio.sleep(60.0)
        text = await scene.why("a")
        assert "offset 1 key 'a': it is held back until 20" in text
        assert "as its key takes too much handler time" in text
        scene.takes_s = 0.0

    played(main, defer_enabled=False, monopolization_threshold=0.5, monopolization_window=100.0)


def test_its_partition_is_another_members() -> None:
    async def main(scene: Scene) -> None:
        await scene.begin()
        other = scene.place.client()  # one partition, two members: this one gets nothing
        await other.subscribe(scene)
        await asyncio.sleep(1.0)
        assert await other.why(scene.place.topic, "a") == (
            "key 'a': its partition is not assigned to this client; here: no partitions assigned"
        )
        assert await scene.client.why("elsewhere", "a") == (
            "key 'a': its partition is not assigned to this client; this client holds 1 partitions"
        )

    played(main)


def test_its_partition_takes_nothing_in() -> None:
    async def main(scene: Scene) -> None:
        await scene.begin(b"a", b"b", b"c")
        text = await scene.why("c")
        assert "offset 2 key 'c': it is fetched, and its partition takes nothing in: 2 of" in text
        assert "max_uncommitted is 2; the oldest is offset 0, unfinished for" in text
        assert re.search(r"s; its handler runs \(attempt 1\), for \d\.\d s so far$", text)

    played(main, max_uncommitted=2)


def test_the_store_is_down() -> None:
    async def main(scene: Scene) -> None:
        scene.place.cluster.attached(MemoryStoreState).outage("no node answers")
        await scene.begin(b"a")
        assert (await scene.why("a")).endswith(
            "key 'a': it is fetched, and its partition takes nothing in: no node answers"
        )
        scene.place.cluster.attached(MemoryStoreState).restore()
        await asyncio.sleep(20.0)
        assert "its handler runs" in await scene.why("a")

    played(main)


def test_the_broker_is_down() -> None:
    async def main(scene: Scene) -> None:
        await scene.begin()
        scene.place.cluster.outage()
        await asyncio.sleep(1.0)
        text = await scene.why("a")
        assert text.startswith("key 'a': nothing is known of it in the 1 partitions held here")
        assert "nothing comes now, as the connection to Kafka is lost: the broker" in text

    played(main)


def test_nothing_is_known_of_it() -> None:
    async def main(scene: Scene) -> None:
        scene.open.set()
        await scene.begin(b"a")
        assert await scene.why("a") == (
            "key 'a': nothing is known of it in the 1 partitions held here: everything of it is done, "
            "or has not come, or its partition is another member's"
        )

    played(main)


def test_its_timer_is_in_the_way() -> None:
    class Sets(Scene):
        """Its first message sets a timer."""

        async def on_message(self, context: Context, message: Message) -> None:
            if message.offset == 0:
                at = self.place.runtime.wall() + 2.0
                await context.schedule(datetime.fromtimestamp(at, UTC))

    async def main(place: Place) -> None:
        scene = Sets(place)
        await scene.begin(b"a")
        await asyncio.sleep(3.0)
        await scene.put(b"a")
        text = await scene.why("a")
        assert "partition 0 timer 2023-11-14T22:1" in text
        assert "key 'a': its handler runs (attempt 1)" in text
        scene.open.set()

    run_simulated(main)


def test_its_partition_is_drained() -> None:
    async def main(scene: Scene) -> None:
        await scene.begin(b"a")
        stopping = asyncio.create_task(scene.client.unsubscribe())
        await asyncio.sleep(0.1)
        assert "its handler runs" in await scene.why("a")
        assert "takes nothing in: its partition starts nothing more" in await scene.why("b")
        scene.open.set()
        await stopping

    played(main)


@pytest.mark.parametrize("mode", ["best-effort", "low-latency"])
def test_in_the_other_modes(mode: str) -> None:
    async def main(scene: Scene) -> None:
        await scene.place.create_topic("failed")
        await scene.begin(b"a", b"b")
        assert "its handler runs (attempt 1)" in await scene.why("a")
        assert "it waits for a permit" in await scene.why("b")

    played(main, mode=mode, max_concurrency=1, failure_topic="failed")


def test_it_is_not_subscribed() -> None:
    async def main(scene: Scene) -> None:
        assert await scene.why("a") == "key 'a': this client is not subscribed (configured)"
        await scene.begin(b"a")
        await scene.client.shutdown()
        assert await scene.why("a") == "key 'a': this client is not subscribed (shut_down)"

    played(main)


async def test_a_forked_process_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    client = place.client()
    monkeypatch.setattr(client, "_pid", -1)
    for call in (client.why("t", "k"), client.snapshot()):
        with pytest.raises(ForkError):
            await call
    monkeypatch.undo()
