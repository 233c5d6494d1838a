"""A broker that takes shorter notes with a commit than usual (``offset.metadata.max.bytes``)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.client.support import Recorder, eventually
from tools.look import LookError

if TYPE_CHECKING:
    from prosody import Context, Message
    from tests.client.support import Place
    from tests.outages.support import Log

pytestmark = pytest.mark.real

LIMIT = 150
KAFKA_PROPERTIES = {"offset.metadata.max.bytes": LIMIT}
COUNT = 600


async def test_commits_go_on_with_less(own_place: Place, log: Log) -> None:
    place = own_place
    await place.create_topic(partitions=1)
    release = asyncio.Event()

    async def behave(context: Context, message: Message) -> None:
        # Every second one goes on: as much to note as there can be.
        if message.payload % 2 == 0:
            await release.wait()

    recorder = Recorder(behave)
    blocked = [n for n in range(COUNT) if n % 2 == 0]
    # A permit for each that waits.
    client = place.client(max_uncommitted=2 * COUNT, max_concurrency=len(blocked) + 16)
    await client.subscribe(recorder)
    await place.put_many([(b"key%d" % n, n) for n in range(COUNT)])
    await recorder.until_handled(COUNT - len(blocked))

    async def noted() -> bool:
        try:
            return await place.note() != ""
        except LookError:
            return False  # a young Kafka has no coordinator for a group yet

    await eventually(noted, "a commit with a note should have arrived")
    assert await place.lag() == COUNT, "the first one is stuck"
    assert 0 < len((await place.note()).encode()) <= LIMIT
    assert len(log.lines("offset.metadata.max.bytes")) >= 1
    release.set()
    await recorder.until_handled(COUNT)
    await place.nothing_left()
    await client.shutdown()
    assert not log.lines("commit failed")
    assert not log.lines("will run again")
