"""Kafka is killed, or stands still, and comes back with its data: what a client sees of it.

Killed it is away for a minute, longer than all of aiokafka's own limits, which are 40 seconds; frozen for
15 seconds. PROSODY_TEST_OUTAGE_S sets another time for both.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from prosody import BrokerError, PermanentError, SendError, SendTimeoutError
from tests.client.probing import ALIVE, ask, probed
from tests.client.support import Recorder, eventually, unique
from tests.outages.support import DEADLINE_S, Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from prosody import Context, Message, ProsodyClient
    from tests.client.support import Place
    from tests.outages.support import Log
    from tools.services import KafkaServer

KILLED_S, FROZEN_S = 60.0, 15.0
if "PROSODY_TEST_OUTAGE_S" in os.environ:
    KILLED_S = FROZEN_S = float(os.environ["PROSODY_TEST_OUTAGE_S"])
HASTE_S = 2.0
LINES_MAX = 30
"""Warnings and errors of a whole outage. aiokafka alone has about 25 texts for it; without care there
are that many each second."""

pytestmark = [pytest.mark.real, pytest.mark.timeout(180 + 2 * max(KILLED_S, FROZEN_S))]


async def assigned(client: ProsodyClient, partitions: int) -> None:
    async def look() -> bool:
        return (await ask(client, "/readyz"))[:2] == (200, f"{partitions} partitions assigned")

    await eventually(look, f"it should hold {partitions} partitions")


async def lost(client: ProsodyClient) -> None:
    """What an orchestrator is told: not ready, and nothing that a restart would mend."""
    reply = await ask(client, "/readyz")
    first, second = reply.text.split("\n")
    assert (reply.status, second) == (503, "8 partitions assigned")
    assert first.startswith("connection to Kafka lost: ")
    assert (await ask(client, "/livez"))[:2] == ALIVE


async def kill(server: KafkaServer) -> Callable[[], None]:
    server.kill()
    return lambda: server.start() and None


async def freeze(server: KafkaServer) -> Callable[[], None]:
    server.pause()
    return server.resume


@pytest.mark.parametrize(
    ("go_away", "away_s"),
    [pytest.param(kill, KILLED_S, id="kill"), pytest.param(freeze, FROZEN_S, id="freeze")],
)
async def test_everything_goes_on_after_an_outage(
    own_place: Place,
    running_kafka: KafkaServer,
    log: Log,
    record_property: Callable[[str, object], None],
    go_away: Callable[[KafkaServer], Callable[[], Callable[[], None]]],
    away_s: float,
) -> None:
    place = own_place
    topic, other = await place.create_topic(), await place.create_topic(f"{place.topic}-hasty")
    client = probed(
        place,
        mode="pipeline",
        subscribed_topics=[topic, other],
        stall_threshold=5.0,
        send_timeout=None,
    )
    recorder = Recorder()
    await client.subscribe(recorder)
    await assigned(client, 8)
    hasty = place.client(send_timeout=HASTE_S)
    patiently = Stream(client, topic, ["a", "b", "c", "d"])
    hastily = Stream(hasty, other, ["a", "b", "c", "d"])
    async with patiently.running(), hastily.running():
        await asyncio.gather(patiently.until_taken(30), hastily.until_taken(30))
        log.records.clear()  # a young Kafka has no coordinator for a moment
        back = await go_away(running_kafka)
        # An outage lasts, whatever happens in it.
        outage = asyncio.create_task(asyncio.sleep(away_s))
        await log.until("connection to Kafka lost")
        await lost(client)
        await hastily.until(lambda s: len(s.failures) >= 4)
        await outage
        assert await client.consumer_state() == "running"
        assert await client.is_stalled() is False
        assert await client.assigned_partition_count() == 8
        await lost(client)
        told = len(log.troubles())
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(back)
        came_back = loop.time()
        # All the waits from here on have deadlines that are generous and yet no second outage.
        await asyncio.gather(patiently.until_taken(1), hastily.until_taken(1))
        record_property("sends go on after, s", round(loop.time() - came_back, 1))
        await assigned(client, 8)
        record_property("ready after, s", round(loop.time() - came_back, 1))
        await asyncio.gather(patiently.until_taken(30), hastily.until_taken(30))
    for stream in (patiently, hastily):
        await stream.until_handled(recorder)
    record_property("all handled after, s", round(loop.time() - came_back, 1))
    patiently.check(by_topic(recorder, topic))
    hastily.check(by_topic(recorder, other))
    assert not patiently.failures
    assert {type(error) for error in hastily.failures} == {SendTimeoutError}
    await place.nothing_left()
    await log.until("connection to Kafka is back")  # seen at the watcher's next look
    await client.shutdown()
    record_property("lines", log.troubles())
    assert len(log.lines("connection to Kafka lost")) == 1
    assert len(log.lines("connection to Kafka is back")) == 1
    assert told <= LINES_MAX, "\n".join(log.troubles())
    assert len(log.troubles()) <= LINES_MAX, "\n".join(log.troubles())


def by_topic(recorder: Recorder, topic: str) -> Recorder:
    """What was handled of one topic."""
    found = Recorder()
    found.handled = [message for message in recorder.handled if message.topic == topic]
    found.overlaps = recorder.overlaps
    return found


async def test_beginning_while_kafka_is_away(own_place: Place, running_kafka: KafkaServer) -> None:
    """A first send and a subscribe fail, name the servers, and can be tried again."""
    place = own_place
    await place.create_topic()
    client = place.client(send_timeout=HASTE_S)
    running_kafka.kill()
    with pytest.raises(BrokerError, match=running_kafka.address) as refused:
        await client.subscribe(Recorder())
    assert refused.value.retriable
    assert await client.consumer_state() == "configured"
    with pytest.raises(SendError, match=running_kafka.address) as unsent:
        await client.send(place.topic, "k", {"id": "one"})
    assert unsent.value.retriable
    await asyncio.to_thread(running_kafka.start)
    recorder = Recorder()
    await client.subscribe(recorder)
    # Not skipped: it was not sent before.
    await client.send(place.topic, "k", {"id": "one"})
    await recorder.until_handled(1)


async def test_a_dead_letter_is_written_once_over_an_outage(
    own_place: Place, running_kafka: KafkaServer, log: Log
) -> None:
    place = own_place
    await place.create_topic()
    failed = await place.create_topic(unique("failed"), partitions=1)
    away = asyncio.Event()

    async def fail(_: Context, message: Message) -> None:
        if message.key != "before":
            await away.wait()
        raise PermanentError("malformed")

    recorder = Recorder(fail)
    client = place.client(
        mode="low-latency", failure_topic=failed, send_timeout=0.2, retry_base=0.001
    )
    await client.subscribe(recorder)
    await place.put({"i": 0}, key=b"before")
    await log.until(f"sent to {failed!r} partition 0 offset 0")
    await place.put({"i": 1}, key=b"during")
    await recorder.until(lambda r: len(r.attempts) == 2)
    running_kafka.pause()
    away.set()
    await log.until(f"dead letter to {failed!r}", "may still be delivered")
    running_kafka.resume()
    # Had it been sent again and again, the last one would be acknowledged behind the others.
    await log.until(f"sent to {failed!r} partition 0 offset 1")
    await place.nothing_left()


async def test_the_id_cache_knows_only_what_was_acknowledged(
    own_place: Place, running_kafka: KafkaServer, log: Log
) -> None:
    place = own_place
    await place.create_topic()
    client = place.client(send_timeout=HASTE_S)
    await client.send(place.topic, "k", {"id": "before"})
    running_kafka.pause()
    with pytest.raises(SendTimeoutError, match="may still be delivered"):
        await client.send(place.topic, "k", {"id": "during"})
    await client.send(place.topic, "k", {"id": "before"})
    assert len(log.lines("send skipped")) == 1
    running_kafka.resume()
    async with asyncio.timeout(DEADLINE_S):
        await client.send(place.topic, "k", {"id": "during"})
    assert len(log.lines("send skipped")) == 1
    await client.send(place.topic, "k", {"id": "during"})
    assert len(log.lines("send skipped")) == 2
    recorder = Recorder()
    await client.subscribe(recorder)
    await recorder.until(lambda r: len(r.handled) >= 2)
    await place.nothing_left()
    # The one given up was delivered all the same, or not.
    ids = [message.payload["id"] for message in recorder.handled]
    assert ids in (["before", "during"], ["before", "during", "during"])
