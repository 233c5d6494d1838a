"""A timer whose handler does not end is a stall, as a message is: over virtual time, and over HTTP."""

from __future__ import annotations

import asyncio
import logging
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from prosody.stores.memory import MemoryStoreState
from tests.client.probing import ALIVE, DEAD, ask, probed, until
from tests.client.scene import Scene
from tests.client.support import Place, run_simulated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prosody import Context, Message, Timer

THRESHOLD_S = 30.0


class Sets(Scene):
    """Each message with the key ``a`` that comes first sets a timer, whose handler hangs."""

    async def on_message(self, context: Context, message: Message) -> None:
        if message.offset == 0:
            when = self.place.runtime.wall() + 2.0
            await context.schedule(datetime.fromtimestamp(when, UTC))

    async def on_timer(self, context: Context, timer: Timer) -> None:
        if self.failing:
            raise ValueError("a bug of the handler")
        await super().on_timer(context, timer)

    async def stalled(self) -> tuple[str, ...]:
        snapshot = await self.client.snapshot()
        assert await self.client.is_stalled() is bool(snapshot.stalled)
        return tuple(text.replace(self.place.topic, "orders") for text in snapshot.stalled)


def played(main: Callable[[Sets], Awaitable[None]], **options: object) -> None:
    async def with_scene(place: Place) -> None:
        scene = Sets(place, **{"stall_threshold": THRESHOLD_S, **options})
        try:
            await main(scene)
        finally:
            scene.open.set()
            place.cluster.attached(MemoryStoreState).restore()

    run_simulated(with_scene)


def test_a_handler_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "prosody.watch")

    async def main(scene: Sets) -> None:
        await scene.begin(b"a")
        await asyncio.sleep(THRESHOLD_S)
        assert await scene.stalled() == ()
        await asyncio.sleep(4.0)
        (text,) = await scene.stalled()
        assert re.fullmatch(
            r"topic 'orders' partition 0 timer 2023-11-14T22:13:2\dZ key 'a' is unfinished since "
            r"2023-11-14T22:13:2\dZ: its handler runs \(attempt 1\), for 3\d s so far",
            text,
        )
        await asyncio.sleep(60.0)
        (told,) = [r for r in caplog.records if r.levelno == logging.ERROR]
        assert told.getMessage().startswith("stalled: topic")
        scene.open.set()
        await asyncio.sleep(1.0)
        assert await scene.stalled() == ()
        (line,) = [r.getMessage() for r in caplog.records if "moves again" in r.getMessage()]
        assert "timer 2023" in line

    played(main)


def test_a_message_behind_it() -> None:
    async def main(scene: Sets) -> None:
        await scene.begin(b"a")
        await asyncio.sleep(2.0)
        await scene.put(b"a")
        await asyncio.sleep(THRESHOLD_S + 2.0)
        of_message, of_timer = await scene.stalled()
        assert re.search(
            r"offset 1 is unfinished for 3\d s: it waits behind a timer or a deferred message of its key",
            of_message,
        )
        assert " key 'a' is unfinished since " in of_timer

    played(main)


def test_what_waits_between_attempts_is_none() -> None:
    async def main(scene: Sets) -> None:
        scene.failing = True
        await scene.begin(b"a")
        await asyncio.sleep(2.0)
        text = await scene.why("a")
        assert "it is in backoff after attempt 1" in text
        for _ in range(10):
            await asyncio.sleep(THRESHOLD_S)
            assert await scene.stalled() == ()
        scene.failing = False

    played(main, defer_enabled=False, retry_base=100.0, max_retry_delay=100.0)


def test_a_store_that_is_away_is_none() -> None:
    async def main(scene: Sets) -> None:
        await scene.begin(b"a")
        await asyncio.sleep(2.0)
        scene.place.cluster.attached(MemoryStoreState).outage("no node answers")
        scene.open.set()  # it is handled, and cannot be removed
        for _ in range(10):
            await asyncio.sleep(THRESHOLD_S)
            assert await scene.stalled() == ()
        assert "it is handled; its timer is removed from the store at" in await scene.why("a")

    played(main)


def test_a_deferred_message_that_hangs_when_it_is_tried_again() -> None:
    class Fails(Sets):
        async def on_message(self, context: Context, message: Message) -> None:
            await Scene.on_message(self, context, message)

    async def main(place: Place) -> None:
        scene = Fails(place, stall_threshold=THRESHOLD_S, defer_base=10.0)
        scene.failing = True
        await scene.begin(b"a")
        scene.failing = False
        await asyncio.sleep(15.0)
        assert "offset 0 key 'a': its handler runs" in await scene.why("a")
        assert await scene.stalled() == ()
        await asyncio.sleep(THRESHOLD_S)
        (text,) = await scene.stalled()
        assert "partition 0 offset 0 key 'a' is unfinished since 2023-" in text
        scene.open.set()

    run_simulated(main)


def test_one_of_a_partition_that_was_given_up_is_none(caplog: pytest.LogCaptureFixture) -> None:
    async def main(scene: Sets) -> None:
        await scene.begin(b"a")
        await asyncio.sleep(THRESHOLD_S + 4.0)
        assert len(await scene.stalled()) == 1
        consumer = scene.client._consumer
        assert consumer is not None
        (partition,) = consumer.inside.assignment.partitions()
        consumer.inside.assignment.on_lost(frozenset([partition.topic_partition]))
        assert await scene.stalled() == ()
        await asyncio.sleep(1.0)
        assert not [r for r in caplog.records if "moves again" in r.getMessage()]

    played(main)


@pytest.mark.parametrize("place", ["memory"], indirect=True)
async def test_over_http(place: Place) -> None:
    await place.create_topic(partitions=1)
    scene = Sets(place)
    client = probed(place, mode="pipeline", stall_threshold=1.0, timeout=60.0)
    await client.subscribe(scene)
    await until(client, "/readyz", 200)
    assert (await ask(client, "/livez"))[:2] == ALIVE
    await place.put({}, key=b"customer-7")
    reply = await until(client, "/livez", 503)
    summary, line = reply.text.split("\n")
    assert summary == DEAD
    pattern = (
        rf"topic '{place.topic}' partition 0 timer \d\d\d\d-\S+Z key 'customer-7' is unfinished since "
        r"\d\d\d\d-\S+Z: its handler runs \(attempt 1\), for \d\.\d s so far"
    )
    assert re.fullmatch(pattern, line)
    ready = await ask(client, "/readyz")
    first, *others = ready.text.split("\n")
    assert (ready.status, first) == (200, "1 partitions assigned")
    assert any(re.fullmatch(pattern, other) for other in others)
    scene.open.set()
    await until(client, "/livez", 200)
