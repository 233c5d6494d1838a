"""What is told of a handler while it runs: that it was called, once, and before what it does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prosody.telemetry.emitter import LINGER_S
from tests.durable.support import Handler
from tests.telemetry.shapes import brief

if TYPE_CHECKING:
    from prosody import Context, Message
    from tests.durable.telling import Told


async def test_a_handler_that_takes_long_is_told_to_have_begun(told: Told) -> None:
    ending = asyncio.Event()

    async def behave(_: Context, message: Message) -> None:
        if message.key == "slow":
            await ending.wait()

    handler = Handler(told.place, behave)
    client = told.client()
    await client.subscribe(handler)
    await told.place.put(1, key=b"slow")
    await handler.until(lambda h: h.running["slow"] == 1)
    await told.place.runtime.sleep(2.5 * LINGER_S)
    await told.place.put(2, key=b"quick")
    await handler.until_handled(1)
    await told.place.runtime.sleep(2.5 * LINGER_S)
    assert brief(await told.events.all(), "key") == [
        ("message.dispatched", "slow"),
        ("message.dispatched", "quick"),
        ("message.succeeded", "quick"),
    ]
    ending.set()
    await handler.until_handled(2)
    assert await told.of(client, "key") == [
        ("message.dispatched", "slow"),
        ("message.dispatched", "quick"),
        ("message.succeeded", "quick"),
        ("message.succeeded", "slow"),
    ]


async def test_what_runs_at_unsubscribe_is_told(told: Told) -> None:
    async def behave(_: Context, message: Message) -> None:
        await asyncio.Event().wait()

    handler = Handler(told.place, behave)
    client = told.client(shutdown_timeout=3.0)
    await client.subscribe(handler)
    await told.place.put(1)
    await handler.until(lambda h: sum(h.running.values()) == 1)
    assert await told.of(client, "errorCategory") == [
        ("message.dispatched", None),
        ("message.failed", "transient"),
    ]


async def test_that_a_handler_was_called_is_told_before_what_it_does(told: Told) -> None:
    async def behave(context: Context, _: Message) -> None:
        when = told.place.after(1000)
        await context.schedule(when)
        await context.unschedule(when)

    handler = Handler(told.place, behave)
    client = told.client()
    await client.subscribe(handler)
    await told.place.put(1)
    await handler.until_handled(1)
    assert [event[0] for event in await told.of(client)] == [
        "message.dispatched",
        "timer.scheduled",
        "timer.cancelled",
        "message.succeeded",
    ]
