"""Sends while the group rebalances: the order of a key holds, and what was acknowledged is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.client.support import Recorder, eventually, unique
from tests.outages.support import Stream, number

if TYPE_CHECKING:
    from prosody import Context, Message, ProsodyClient
    from tests.client.support import Place

KEYS = [f"key{n}" for n in range(12)]


async def share(client: ProsodyClient, partitions: int) -> None:
    async def look() -> bool:
        return await client.assigned_partition_count() == partitions

    await eventually(look, f"it should hold {partitions} partitions")


async def test_sends_of_a_program_and_of_handlers_during_rebalances(place: Place) -> None:
    """Each message is forwarded by its handler, while members come and go under both."""
    topic, forwarded = await place.create_topic(), await place.create_topic(unique("forwarded"))
    recorders = {}

    def member(name: str) -> ProsodyClient:
        client = place.client(mode="pipeline", max_concurrency=32)

        async def forward(context: Context, message: Message) -> None:
            # With the same id each time it runs: the cache of this client knows it.
            await client.send(forwarded, message.key, message.payload)

        recorders[name] = Recorder(forward)
        return client

    sender = place.client()
    stays, comes = member("stays"), member("comes")
    await stays.subscribe(recorders["stays"])
    await share(stays, 4)
    stream = Stream(sender, topic, KEYS, abreast=4)
    async with stream.running():
        for _ in range(2):
            await stream.until_taken(20)
            await comes.subscribe(recorders["comes"])
            await share(comes, 2)
            await stream.until_taken(20)
            await comes.unsubscribe()
            await share(stays, 4)
    assert not stream.failures
    await place.nothing_left()

    both = Recorder()
    both.handled = [m for recorder in recorders.values() for m in recorder.handled]
    # One after the other as the log has them: the two clocks of two members are not compared.
    both.handled.sort(key=lambda message: (message.partition, message.offset))
    stream.check(both)
    assert len(both.handled) == sum(stream.called.values()), "a rebalance in order repeats nothing"

    reader = place.client(group_id=unique("reader"), subscribed_topics=forwarded)
    read = Recorder()
    await reader.subscribe(read)
    await read.until_handled(len(both.handled))
    for key in KEYS:
        numbers = [number(message.payload) for message in read.handled if message.key == key]
        assert numbers == list(range(1, stream.called[key] + 1))
