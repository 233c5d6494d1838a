"""Committed offsets that the log does not have any more, or not yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.broker.protocol import OffsetAndMetadata, TopicPartition
from tests.broker.members import member
from tests.client.support import Recorder

if TYPE_CHECKING:
    from tests.broker.levers import Levers
    from tests.client.support import Place
    from tests.outages.support import Log


async def consume(place: Place, count: int) -> list[object]:
    """Subscribe until ``count`` messages are handled and committed; their payloads."""
    recorder = Recorder()
    client = place.client()
    await client.subscribe(recorder)
    await recorder.until_handled(count)
    await place.nothing_left()
    await client.shutdown()
    return [message.payload for message in recorder.handled]


async def test_retention_has_passed_the_committed_offset(
    place: Place, levers: Levers, log: Log
) -> None:
    await place.create_topic(partitions=1)
    for n in range(4):
        await place.put(n)
    assert await consume(place, 4) == [0, 1, 2, 3]
    for n in range(4, 20):
        await place.put(n)
    await levers.truncate(place.topic, 0, 11)
    # What is left, and nothing of it twice.
    assert await consume(place, 9) == list(range(11, 20))
    [line] = log.lines("WARNING prosody")
    for part in (place.topic, "4 to 10", "gone", place.group, "retention"):
        assert part in line


def first_missing(numbers: list[int]) -> int:
    return next(n for n in range(len(numbers)) if numbers[n] != n)


async def test_retention_passes_a_consumer_that_lags(
    place: Place, levers: Levers, log: Log
) -> None:
    """It holds the partition, and stands still while its handlers do not keep up."""
    await place.create_topic(partitions=1)
    large = "x" * 4_000
    # Incompressible or not: all of it together is more than may be fetched ahead.
    client = place.client(max_uncommitted=1, fetch_bytes=1024 * 1024, compression="none")
    await place.put_many([(b"k", {"n": n, "text": large}) for n in range(2_000)])
    recorder = Recorder()
    truncated = False

    async def behave(context: object, message: object) -> None:
        nonlocal truncated
        if not truncated:
            truncated = True
            await levers.truncate(place.topic, 0, 1_990)

    recorder.behave = behave
    await client.subscribe(recorder)
    await recorder.until(lambda r: any(m.payload["n"] == 1_999 for m in r.handled))
    await place.nothing_left()
    numbers = [message.payload["n"] for message in recorder.handled]
    assert numbers == sorted(set(numbers)), "in order, none twice"
    assert numbers[-10:] == list(range(1_990, 2_000))
    assert len(numbers) < 2_000, "retention has taken nothing"
    [line] = log.lines("WARNING prosody")
    assert "gone" in line
    assert f"{first_missing(numbers)} to 1989" in line
    assert place.topic in line


async def test_a_committed_offset_beyond_the_end(place: Place, log: Log) -> None:
    """What a restored cluster has, or one whose topic was made anew behind its back."""
    await place.create_topic(partitions=1)
    for n in range(5):
        await place.put(n)
    partition = TopicPartition(place.topic, 0)
    async with member(place.broker, place.group, place.topic) as former:
        await former.listener.until_holds([partition])
        await former.consumer.commit({partition: OffsetAndMetadata(1_000)})
    assert await consume(place, 5) == list(range(5))
    told = log.lines("WARNING prosody", place.topic, "1000")
    assert told
    assert "made anew" in told[-1]
    assert len(log.troubles()) <= 4, "\n".join(log.troubles())
