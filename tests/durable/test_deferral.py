"""A message that fails for a while: its key waits in order, everything else goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody import PermanentError
from prosody.model.times import seconds_from_utc
from tests.durable.support import Failing, Handler

if TYPE_CHECKING:
    from datetime import datetime

    from prosody import Context, Message, Timer
    from tests.durable.support import Place
    from tests.outages.support import Log

COUNT = 30


def rounds(first: int, count: int, *keys: str) -> list[tuple[bytes, int]]:
    return [(key.encode(), n) for n in range(first, first + count) for key in keys]


def once_in_order(handlers: list[Handler], key: str) -> None:
    """Of all rounds, each is handled once and in order; no later one began before the head succeeded."""
    runs = sorted(
        (run for handler in handlers for run in handler.of("message", key, ok=None)),
        key=lambda run: run.began,
    )
    assert [run.value for run in runs if run.ok] == list(range(len({r.value for r in runs}))), key
    assert [run.value for run in runs] == sorted(run.value for run in runs), key
    assert not any(handler.overlaps for handler in handlers)


async def test_later_messages_wait_in_order_and_the_partition_goes_on(place: Place) -> None:
    """More of the failing key than fit into a partition: others are taken in, and all is committed."""
    await place.create_topic(partitions=1)
    failing = Failing("bad")
    handler = Handler(place, failing)
    await place.client(max_uncommitted=8).subscribe(handler)
    await place.put_many(rounds(0, COUNT, "bad", "good"))
    await handler.until(lambda h: len(h.handled("good")) == COUNT and h.failures("bad") >= 2)
    await place.nothing_left()
    assert not handler.handled("bad")
    assert {run.value for run in handler.of("message", "bad", ok=False)} == {0}
    failing.keys.clear()
    await place.put_many(rounds(COUNT, 5, "bad", "good"))
    await handler.until_handled(2 * COUNT + 10)
    for key in ("bad", "good"):
        once_in_order([handler], key)
    await place.nothing_left()


async def test_what_is_run_again_is_what_was_sent(place: Place) -> None:
    await place.create_topic()
    seen: list[Message] = []

    async def fail_twice(context: Context, message: Message) -> None:
        seen.append(message)
        if len(seen) <= 2:
            raise ValueError("not yet")

    handler = Handler(place, fail_twice)
    await place.client().subscribe(handler)
    await place.put({"id": "order-1", "lines": [1, {"a": "ä"}]}, key="schlüssel".encode())
    await handler.until_handled(1)
    assert seen[0] == seen[1] == seen[2]


async def test_a_head_that_fails_for_good_is_dropped_and_its_followers_run(
    place: Place, log: Log
) -> None:
    await place.create_topic()
    failing = Failing("bad")

    async def behave(context: Context, message: Message) -> None:
        if message.payload % 2 == 0:
            await failing(context, message)

    handler = Handler(place, behave)
    await place.client().subscribe(handler)
    await place.put_many(rounds(0, 4, "bad"))
    await place.nothing_left()
    failing.error = PermanentError("malformed")
    await handler.until(lambda h: h.handled("bad") == [1, 3])
    values = [run.value for run in handler.of("message", "bad", ok=None)]
    assert values == sorted(values)
    assert values[-3:] == [1, 2, 3]
    await log.until("failed permanently", "'bad'", "malformed")
    # Nothing of the key is left that a later message would wait for.
    await place.put_many(rounds(5, 1, "bad"))
    await handler.until(lambda h: h.handled("bad") == [1, 3, 5])


async def test_deferred_messages_survive_a_client_and_new_ones_queue_behind(place: Place) -> None:
    await place.create_topic()
    failing = Failing("bad")
    first, second = Handler(place, failing), Handler(place, failing)
    client = place.client()
    await client.subscribe(first)
    await place.put_many(rounds(0, 5, "bad", "good"))
    await first.until(lambda h: len(h.handled("good")) == 5)
    await place.nothing_left()
    await client.unsubscribe()
    await place.put_many(rounds(5, 5, "bad", "good"))
    await place.client().subscribe(second)
    await second.until(lambda h: len(h.handled("good")) == 5 and h.failures("bad") >= 1)
    await place.nothing_left()
    failing.keys.clear()
    await second.until_handled(15)
    for key in ("bad", "good"):
        once_in_order([first, second], key)
    assert not first.handled("bad")


async def test_with_deferral_off_the_message_blocks_its_place(place: Place) -> None:
    await place.create_topic(partitions=1)
    failing = Failing("bad")
    handler = Handler(place, failing)
    await place.client(defer_enabled=False).subscribe(handler)
    await place.put_many(rounds(0, 3, "bad", "good"))
    await handler.until(lambda h: len(h.handled("good")) == 3 and h.failures("bad") >= 5)
    assert await place.lag() >= 3
    failing.keys.clear()
    await handler.until_handled(6)
    once_in_order([handler], "bad")
    await place.nothing_left()


async def test_timer_calls_in_a_deferred_attempt_see_the_applications_timers_only(
    place: Place,
) -> None:
    await place.create_topic()
    listed: list[list[datetime]] = []
    time = place.after(3600)

    async def behave(context: Context, message: Message) -> None:
        listed.append(await context.scheduled())
        if len(listed) == 1:
            await context.schedule(time)
        if len(listed) == 3:
            await context.clear_scheduled()
            await context.schedule(place.after(0))
        elif len(listed) < 3:
            raise ValueError("not yet")

    handler = Handler(place, behave)
    await place.client().subscribe(handler)
    await place.put_many(rounds(0, 2, "k"))
    await handler.until(lambda h: h.handled("k") == [0, 1] and len(h.fired("k")) == 1)
    assert listed[:3] == [[], [time], [time]]
    once_in_order([handler], "k")


async def test_a_deferred_timer_does_not_lose_the_messages_of_its_key(place: Place) -> None:
    """Both kinds of deferred work at once, of the same key, over a change of clients."""
    await place.create_topic()
    failing = Failing("bad")
    times = [place.after(1), place.after(2)]

    async def behave(context: Context, message: Message) -> None:
        if message.payload == 0:
            for time in times:
                await context.schedule(time)
        else:
            await failing(context, message)

    async def timer(context: Context, timer: Timer) -> None:
        await failing(context, timer)

    first, second = Handler(place, behave, timer), Handler(place, behave, timer)
    client = place.client()
    await client.subscribe(first)
    await place.put_many(rounds(0, 4, "bad"))
    await first.until(lambda h: bool(h.of("timer", ok=False) and h.of("message", "bad", ok=False)))
    await place.nothing_left()
    await client.unsubscribe()
    failing.keys.clear()
    await place.client().subscribe(second)
    await second.until(lambda h: len(h.handled()) == 3 and len(h.fired()) == 2)
    assert first.handled("bad") + second.handled("bad") == [0, 1, 2, 3]
    assert second.fired("bad") == [seconds_from_utc(time) for time in times]
    assert not first.overlaps + second.overlaps


async def test_a_record_that_is_gone_is_told_and_what_is_left_goes_on(
    services: Place, log: Log
) -> None:
    """Only on Kafka: the store in memory keeps the message itself."""
    from tests.broker.levers import KafkaLevers
    from tests.client.support import unique
    from tests.client.test_modes import read_all

    await services.create_topic(partitions=1)
    gone = await services.create_topic(unique("gone"), partitions=1)
    failing = Failing("bad")
    # A cache that holds one record: the first ones are loaded from Kafka.
    client = services.client(defer_cache_size=1, failure_topic=gone)
    first, second = Handler(services, failing), Handler(services)
    await client.subscribe(first)
    await services.put_many(rounds(0, 4, "bad"))
    await services.nothing_left()
    await client.unsubscribe()
    (server,) = services.broker._servers  # type: ignore[attr-defined]
    await KafkaLevers(server).truncate(services.topic, 0, 2)
    await client.subscribe(second)
    await second.until(lambda h: h.handled("bad") == [2, 3])
    told = [line for n in (0, 1) for line in log.lines("gone", f"offset {n}", "'bad'")]
    assert len(told) == 2, log.troubles()
    letters = await read_all(services, gone, 2)
    for n, letter in enumerate(letters):
        headers = dict(letter.headers)
        assert (letter.key, letter.value) == (b"bad", None)
        assert headers["source-offset"] == str(n).encode()
        assert headers["source-topic"] == services.topic.encode()
        assert b"record gone" in (headers["source-error"] or b"")
