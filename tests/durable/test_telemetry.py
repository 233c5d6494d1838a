"""Telemetry events of what happens to messages and timers, field by field."""

from __future__ import annotations

import socket
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from prosody import PermanentError
from tests.client.support import unique
from tests.durable.support import Failing, Handler

if TYPE_CHECKING:
    from prosody import Context, Message, Timer
    from tests.durable.support import Place
    from tests.durable.telling import Told


async def test_a_message_that_succeeds_and_one_that_fails(told: Told) -> None:
    """Every field; the names and their order are checked for all events that are read."""

    async def behave(_: Context, message: Message) -> None:
        if message.key == "bad":
            raise PermanentError('no\n"use"')

    place = told.place
    handler = Handler(place, behave)
    client = told.client()
    await client.subscribe(handler)
    await place.put_many([("gü".encode(), 1), (b"bad", 2)])
    await handler.until(lambda h: len(h.runs) == 2)
    await place.nothing_left()
    await client.unsubscribe()
    events = await told.events.all()
    assert len(events) == 4
    for offset, key in enumerate(("gü", "bad")):
        dispatched, ended = (event for event in events if event["key"] == key)
        common = {
            "offset": offset, "topic": place.topic, "partition": 0, "key": key,
            "source": place.group, "hostname": socket.gethostname(), "demandType": "normal",
        }  # fmt: skip
        assert dispatched["eventTime"] <= ended["eventTime"]
        del dispatched["eventTime"], ended["eventTime"]
        assert dispatched == {"type": "prosody.message.dispatched", **common}
        if key == "bad":
            common |= {"errorCategory": "permanent", "exception": repr(PermanentError('no\n"use"'))}
        end = "failed" if key == "bad" else "succeeded"
        assert ended == {"type": f"prosody.message.{end}", **common}


async def test_each_attempt_in_place_is_told(told: Told) -> None:
    failing = Failing("k")

    async def behave(context: Context, message: Message) -> None:
        if handler.failures("k") == 2:
            failing.keys.clear()
        await failing(context, message)

    handler = Handler(told.place, behave)
    client = told.client(defer_enabled=False)
    await client.subscribe(handler)
    await told.place.put(1)
    await handler.until_handled(1)
    told_of = await told.of(client, "demandType", "errorCategory", "offset")
    assert told_of == [
        ("message.dispatched", "normal", None, 0),
        ("message.failed", "normal", "transient", 0),
        ("message.dispatched", "failure", None, 0),
        ("message.failed", "failure", "transient", 0),
        ("message.dispatched", "failure", None, 0),
        ("message.succeeded", "failure", None, 0),
    ]


async def test_the_life_of_a_timer(told: Told) -> None:
    due = told.place.after(1)

    async def schedule(context: Context, _: Message) -> None:
        await context.schedule(due)

    handler = Handler(told.place, schedule)
    client = told.client()
    await client.subscribe(handler)
    await told.place.put(1)
    await handler.until_fired(1)
    told_of = await told.of(client, "timerType", "demandType", "scheduledTime", "offset")
    text = f"{due:%Y-%m-%dT%H:%M:%SZ}"
    assert told_of == [
        ("message.dispatched", None, "normal", None, 0),
        ("timer.scheduled", "application", None, text, None),
        ("message.succeeded", None, "normal", None, 0),
        ("timer.dispatched", "application", "normal", text, None),
        ("timer.succeeded", "application", "normal", text, None),
    ]


async def test_timers_that_are_cancelled_or_replaced(told: Told) -> None:
    place = told.place
    times = [place.after(3600 + n) for n in range(6)]

    async def behave(context: Context, _: Message) -> None:
        await context.schedule(times[0])
        await context.unschedule(times[0])
        await context.schedule(times[1])
        await context.schedule(times[2])
        await context.clear_scheduled()
        await context.schedule(times[3])
        await context.clear_and_schedule(times[4])
        await context.clear_and_schedule(times[4])

    handler = Handler(place, behave)
    client = told.client()
    await client.subscribe(handler)
    await place.put(1)
    await handler.until_handled(1)
    told_of = [
        (what, times.index(datetime.fromisoformat(due)))
        for what, due in await told.of(client, "scheduledTime")
        if due is not None
    ]
    assert told_of == [
        ("timer.scheduled", 0),
        ("timer.cancelled", 0),
        ("timer.scheduled", 1),
        ("timer.scheduled", 2),
        ("timer.cancelled", 1),
        ("timer.cancelled", 2),
        ("timer.scheduled", 3),
        ("timer.cancelled", 3),
        ("timer.scheduled", 4),
        ("timer.scheduled", 4),
    ]


async def test_a_deferred_message_is_told_of_once_for_each_attempt(told: Told) -> None:
    """Its retry timer has events of its own, as in the reference; the message's are not repeated."""
    failing = Failing("k")

    async def behave(context: Context, message: Message) -> None:
        if handler.failures("k") == 2:
            failing.keys.clear()
        await failing(context, message)

    handler = Handler(told.place, behave)
    client = told.client()
    await client.subscribe(handler)
    await told.place.put(1)
    await handler.until_handled(1)
    await told.events.until(12)
    told_of = await told.of(client, "timerType", "demandType", "errorCategory")
    retry = "deferredMessage"
    first = [
        ("message.dispatched", None, "normal", None),
        ("message.failed", None, "normal", "transient"),
        ("timer.scheduled", retry, None, None),
        ("timer.dispatched", retry, "failure", None),
        ("message.dispatched", None, "failure", None),
        ("message.failed", None, "failure", "transient"),
        ("timer.scheduled", retry, None, None),
        ("timer.failed", retry, "failure", "transient"),
    ]
    second = [
        ("timer.dispatched", retry, "failure", None),
        ("message.dispatched", None, "failure", None),
        ("message.succeeded", None, "failure", None),
        ("timer.succeeded", retry, "failure", None),
    ]
    assert told_of == [*first, *second]


async def test_a_deferred_timer(told: Told) -> None:
    place = told.place
    due = place.after(1)

    async def schedule(context: Context, _: Message) -> None:
        await context.schedule(due)

    async def fail_once(_: Context, __: Timer) -> None:
        if not handler.failures("k"):
            raise ValueError("once")

    handler = Handler(place, schedule, fail_once)
    client = told.client()
    await client.subscribe(handler)
    await place.put(1)
    await handler.until_fired(1)
    await told.events.until(10)
    told_of = await told.of(client, "timerType", "demandType", "errorCategory")
    live, retry = "application", "deferredTimer"
    assert told_of[3:] == [
        ("timer.dispatched", live, "normal", None),
        ("timer.failed", live, "normal", "transient"),
        ("timer.scheduled", retry, None, None),
        ("timer.dispatched", retry, "failure", None),
        ("timer.dispatched", live, "failure", None),
        ("timer.succeeded", live, "failure", None),
        ("timer.succeeded", retry, "failure", None),
    ]


async def test_what_is_sent_and_dead_letters(told: Told) -> None:
    async def refuse(_: Context, __: Message) -> None:
        raise PermanentError("no")

    place = told.place
    failed = await place.create_topic(unique("failed"), partitions=1)
    handler = Handler(place, refuse)
    client = told.client(mode="low-latency", failure_topic=failed)
    await client.subscribe(handler)
    await client.send(place.topic, "k-1", {"id": "a"})
    await client.send(place.topic, "k-1", {"id": "a"})  # skipped: not sent
    await handler.until(lambda h: len(h.runs) == 1)
    await place.nothing_left()
    told_of = await told.of(client, "topic", "partition", "offset", "key", "source")
    assert ("message.sent", place.topic, 0, 0, "k-1", "tests") in told_of
    assert ("message.sent", failed, 0, 0, "k-1", "tests") in told_of
    assert len(told_of) == 4


async def test_a_client_that_only_sends(told: Told) -> None:
    place = told.place
    client = told.client(group_id=None, subscribed_topics=None)
    await client.send(place.topic, "k", 1)
    (event,) = await told.events.until(1)
    assert event["type"] == "prosody.message.sent"
    assert (event["offset"], event["source"]) == (0, "tests")
    await client.send(place.topic, "k", 2)
    await client.shutdown()
    assert len(await told.events.all()) == 2


async def test_turned_off_nothing_is_written(told: Told) -> None:
    handler = Handler(told.place)
    client = told.place.client(telemetry_topic=told.topic)
    await client.subscribe(handler)
    await client.send(told.place.topic, "k", 1)
    await handler.until_handled(1)
    await client.shutdown()
    assert not await told.events.all()


async def test_nothing_is_written_about_the_events_themselves(told: Told) -> None:
    """A service that reads its own telemetry topic, and writes to it, makes no events about that."""
    place = told.place
    handler = Handler(place)
    client = told.client(subscribed_topics=(place.topic, told.topic))
    await client.subscribe(handler)
    await place.put(1)
    # Its two events come back as messages.
    await handler.until_handled(3)
    await client.send(told.topic, "k", {"type": "mine"})
    await handler.until_handled(4)
    await client.unsubscribe()
    kinds = [run.value["type"] for run in handler.of("message") if run.value != 1]
    assert kinds == ["prosody.message.dispatched", "prosody.message.succeeded", "mine"]
    assert await told.events.end() == 3


async def test_without_the_topic_everything_else_works(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    await place.create_topic(partitions=1)
    handler = Handler(place)
    missing = unique("missing") + "!" if not place.mock else unique("missing")
    client = place.client(telemetry_enabled=True, telemetry_topic=missing)
    await client.subscribe(handler)
    await place.put_many([(b"k", n) for n in range(50)])
    await handler.until_handled(50)
    await place.nothing_left()
    await client.unsubscribe()
    await client.shutdown()
    lines = [r.getMessage() for r in caplog.records if r.name == "prosody.telemetry"]
    assert "cannot be written" in lines[0]
    assert "100 telemetry events were dropped" in lines[-1]
    assert len(lines) == 2
