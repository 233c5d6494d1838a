"""Topics that are missing, appear, grow and disappear while a client consumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from prosody import TopicsNotFoundError
from tests.client.support import Recorder, eventually, unique
from tests.outages.support import LINES_OF_A_CHANGE_MAX

if TYPE_CHECKING:
    from prosody import ProsodyClient
    from tests.broker.levers import Levers
    from tests.client.support import Place
    from tests.outages.support import Log

LOOK_S = 1.0
"""``metadata_max_age``: how soon a change is noticed."""


async def assigned(client: ProsodyClient, partitions: int) -> None:
    async def look() -> bool:
        return await client.assigned_partition_count() == partitions

    await eventually(look, f"it should hold {partitions} partitions")


async def delete_topic(place: Place, name: str) -> None:
    admin = place.broker.admin()
    try:
        await admin.delete_topic(name)
    finally:
        await admin.stop()


async def test_a_client_waits_for_its_topics_by_trying_again(place: Place) -> None:
    """The way the README tells: catch the error, create or wait, subscribe again."""
    there, late, later = place.topic, unique("late"), unique("late")
    await place.create_topic(there)
    client = place.client(subscribed_topics=[there, late, later])
    missing = []
    for name in (late, later):
        with pytest.raises(TopicsNotFoundError) as refused:
            await client.subscribe(Recorder())
        missing.append(refused.value.topics)
        assert await client.consumer_state() == "configured"
        assert await client.assigned_partition_count() == 0
        # Usable: sending does not need what consuming lacks.
        await client.send(there, "k", {"before": name})
        await place.create_topic(name)
        await client.send(name, "k", {"in": name})
    assert missing == [tuple(sorted((late, later))), (later,)]
    recorder = Recorder()
    await client.subscribe(recorder)
    await recorder.until_handled(4)
    found = sorted(str(message.payload) for message in recorder.handled)
    assert found == sorted(
        str(payload)
        for payload in (
            *({"before": n} for n in (late, later)),
            *({"in": n} for n in (late, later)),
        )
    )


async def test_added_partitions_are_consumed_from_their_beginning(
    place: Place, levers: Levers, log: Log
) -> None:
    await place.create_topic(partitions=1)
    client = place.client(metadata_max_age=LOOK_S)
    recorder = Recorder()
    await client.subscribe(recorder)
    await assigned(client, 1)
    await place.put(-1)
    await recorder.until_handled(1)
    await levers.add_partitions(place.topic, 4)
    # Some of these are there before the client knows of their partition.
    await place.put_many([(b"key%d" % n, n) for n in range(40)])
    await recorder.until_handled(41)
    await assigned(client, 4)
    assert {message.partition for message in recorder.handled} == {0, 1, 2, 3}
    assert sorted(message.payload for message in recorder.handled) == list(range(-1, 40))
    await place.nothing_left()
    assert not log.lines("lost")
    assert not log.lines("revoked")


async def test_a_deleted_topic_leaves_the_others_alone_and_comes_back_from_its_beginning(
    place: Place, log: Log
) -> None:
    gone, stays = await place.create_topic(), await place.create_topic(unique("stays"))
    client = place.client(subscribed_topics=[gone, stays], metadata_max_age=LOOK_S)
    recorder = Recorder()
    await client.subscribe(recorder)
    await assigned(client, 8)
    for n in range(20):
        await place.put(n, topic=gone)
        await place.put(n, topic=stays)
    await recorder.until_handled(40)
    await place.nothing_left()
    log.records.clear()

    await delete_topic(place, gone)
    await assigned(client, 4)
    for n in range(20, 40):
        await place.put(n, topic=stays)
    await recorder.until_handled(60)
    assert await client.consumer_state() == "running"
    assert await client.is_stalled() is False

    # Fewer records than the group had committed of the former one.
    await place.create_topic(gone)
    for n in range(100, 105):
        await place.put(n, topic=gone)
    await recorder.until_handled(65)
    await assigned(client, 8)
    await place.put(40, topic=stays)
    await recorder.until_handled(66)
    payloads = {
        topic: [message.payload for message in recorder.handled if message.topic == topic]
        for topic in (gone, stays)
    }
    assert payloads[gone] == [*range(20), *range(100, 105)]
    assert payloads[stays] == list(range(41))
    await client.unsubscribe()
    assert len(log.troubles()) <= LINES_OF_A_CHANGE_MAX, "\n".join(log.troubles())

    again = Recorder()
    await place.put("afterwards", topic=gone)
    await client.subscribe(again)
    await again.until_handled(1)
    await place.nothing_left()
    assert [message.payload for message in again.handled] == ["afterwards"]


async def test_a_deleted_topic_is_given_up_at_the_next_fetch(place: Place, log: Log) -> None:
    """Not only when the client looks at its topics again: that is an hour away."""
    gone, stays = await place.create_topic(), await place.create_topic(unique("stays"))
    client = place.client(subscribed_topics=[gone, stays], metadata_max_age=3600.0)
    recorder = Recorder()
    await client.subscribe(recorder)
    await assigned(client, 8)
    await delete_topic(place, gone)
    await assigned(client, 4)
    await place.put("after", topic=stays)
    await recorder.until_handled(1)
    await client.unsubscribe()
    assert len(log.troubles()) <= LINES_OF_A_CHANGE_MAX, "\n".join(log.troubles())


async def test_a_topic_made_anew_at_once_is_read_from_its_beginning(place: Place, log: Log) -> None:
    """Nobody has seen that it was away; what shows it is that its end lies before the position."""
    await place.create_topic(partitions=1)
    client = place.client(metadata_max_age=LOOK_S)
    recorder = Recorder()
    await client.subscribe(recorder)
    await assigned(client, 1)
    for n in range(20):
        await place.put(n)
    await recorder.until_handled(20)
    await place.nothing_left()
    await delete_topic(place, place.topic)
    await place.create_topic(partitions=1)
    for n in range(100, 105):
        await place.put(n)
    await recorder.until_handled(25)
    assert [message.payload for message in recorder.handled] == [*range(20), *range(100, 105)]
    await client.unsubscribe()
    assert len(log.troubles()) <= LINES_OF_A_CHANGE_MAX, "\n".join(log.troubles())


async def test_topics_of_a_regular_expression_come_and_go(place: Place, log: Log) -> None:
    prefix = unique("region")
    first, second = f"{prefix}.eu", f"{prefix}.us"
    client = place.client(subscribed_topics=f"^{prefix}\\.", metadata_max_age=LOOK_S)
    recorder = Recorder()
    # None matches yet, which is no error.
    await client.subscribe(recorder)
    await place.create_topic(first, partitions=1)
    await place.put("eu 1", topic=first)
    await recorder.until_handled(1)
    await place.create_topic(second, partitions=1)
    await place.put("us 1", topic=second)
    await recorder.until_handled(2)
    await assigned(client, 2)
    log.records.clear()
    await delete_topic(place, first)
    await assigned(client, 1)
    await place.put("us 2", topic=second)
    await recorder.until_handled(3)
    await place.create_topic(first, partitions=1)
    await place.put("eu 2", topic=first)
    await recorder.until_handled(4)
    await assigned(client, 2)
    found = [message.payload for message in recorder.handled]
    assert found == ["eu 1", "us 1", "us 2", "eu 2"]
    await client.unsubscribe()
    assert len(log.troubles()) <= LINES_OF_A_CHANGE_MAX, "\n".join(log.troubles())
