"""Another kind of client in the same group, with an assignor of its own."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import InconsistentGroupProtocolError

from prosody import BrokerError
from tests.client.support import Place, Recorder, eventually, unique
from tests.outages.support import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from prosody import ProsodyClient
    from tests.outages.support import Log

pytestmark = pytest.mark.real


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """The real one: the embedded broker has no other kind of client."""
    found: Place = request.getfixturevalue("kafka_place")
    return found


@contextlib.asynccontextmanager
async def foreigner(place: Place, bootstrap: str) -> AsyncIterator[Any]:
    """A plain consumer of the same group and topic; it has asked to join."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=place.group,
        partition_assignment_strategy=(RangePartitionAssignor,),
        auto_offset_reset="earliest",
        enable_auto_commit=True,
    )
    # Not by name at construction: its start would wait for an assignment that may never come.
    await consumer.start()
    try:
        consumer.subscribe([place.topic])
        yield consumer
    finally:
        await consumer.stop()


async def assigned(client: ProsodyClient, partitions: int) -> None:
    async def look() -> bool:
        return await client.assigned_partition_count() == partitions

    await eventually(look, f"it should hold {partitions} partitions")


async def test_a_group_with_foreign_members_is_not_joined(
    place: Place, kafka_bootstrap: str, log: Log
) -> None:
    await place.create_topic()
    client = place.client()
    async with foreigner(place, kafka_bootstrap) as there:
        await place.put(1)
        async with asyncio.timeout(DEADLINE_S):
            assert (await there.getone()).value == b"1"
        with pytest.raises(BrokerError) as refused:
            await client.subscribe(Recorder())
        for part in (
            place.group,
            "'range'",
            "'prosody-cooperative'",
            "`assignor`",
            "PROSODY_ASSIGNOR",
        ):
            assert part in str(refused.value)
        assert not refused.value.retriable
        assert await client.consumer_state() == "configured"
        # Usable, and what was there before is not disturbed.
        await client.send(place.topic, "k", 2)
        async with asyncio.timeout(DEADLINE_S):
            assert (await there.getone()).value == b"2"
        # The first way out: the same assignor.
        alike = place.client(assignor="range")
        recorder = Recorder()
        await alike.subscribe(recorder)
        await assigned(alike, 2)
        await alike.shutdown()
        # The second: another group.
        elsewhere = place.client(group_id=unique("other"))
        await elsewhere.subscribe(recorder)
        await assigned(elsewhere, 4)
        await recorder.until(lambda r: {m.payload for m in r.handled} >= {1, 2})
    # The third: the others are gone, and the refused client tries again.
    mine = Recorder()
    await client.subscribe(mine)
    await assigned(client, 4)
    await client.send(place.topic, "k", 3)
    await mine.until(lambda r: any(m.payload == 3 for m in r.handled))


async def test_a_foreign_member_that_comes_later_leaves_ours_alone(
    place: Place, kafka_bootstrap: str, log: Log
) -> None:
    await place.create_topic()
    client = place.client(session_timeout=6.0)
    recorder = Recorder()
    await client.subscribe(recorder)
    await assigned(client, 4)
    await place.put(1)
    await recorder.until_handled(1)
    log.records.clear()
    async with foreigner(place, kafka_bootstrap) as intruder, asyncio.timeout(DEADLINE_S):
        with pytest.raises(InconsistentGroupProtocolError):
            await intruder.getone()
        for n in range(2, 12):
            await place.put(n)
        await recorder.until_handled(11)
    assert [message.payload for message in recorder.handled] == list(range(1, 12))
    assert await client.assigned_partition_count() == 4
    await place.nothing_left()
    assert not log.lines(logger="prosody", level=20), "it has noticed something"
