"""Once a cancel has returned, the timer does not fire: not now, not after a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.model.times import seconds_from_utc
from tests.durable.support import Handler

if TYPE_CHECKING:
    from datetime import datetime

    from prosody import Context, Message
    from tests.durable.support import Place

WAYS = ("unschedule", "clear", "move")


async def cancel(context: Context, way: str, time: datetime, place: Place) -> None:
    if way == "unschedule":
        await context.unschedule(time)
    elif way == "clear":
        await context.clear_scheduled()
    else:
        await context.clear_and_schedule(place.after(3600))


async def test_a_timer_that_is_due_and_waits_behind_its_canceller_does_not_fire(
    place: Place,
) -> None:
    await place.create_topic()
    time, last = place.after(2), place.after(3)

    async def play(context: Context, message: Message) -> None:
        if message.key in WAYS:
            await context.schedule(time)
            # The timer is due, and waits in the queue of the key.
            await place.until_past(time)
            await cancel(context, message.key, time, place)
        else:
            await context.schedule(time)
            await context.schedule(last)

    handler = Handler(place, play)
    client = place.client()
    await client.subscribe(handler)
    await place.put_many([(key.encode(), 0) for key in (*WAYS, "plain")])
    await handler.until_fired(2)
    # A message of each key comes after what was waiting of it.
    for key in WAYS:
        await place.put({"last": 1}, key=key.encode())
    await handler.until(lambda h: all(len(h.of("message", key)) == 2 for key in WAYS))
    assert handler.fired() == [seconds_from_utc(time), seconds_from_utc(last)]
    assert {run.key for run in handler.of("timer")} == {"plain"}


async def test_what_was_cancelled_is_gone_for_the_next_owner_too(place: Place) -> None:
    await place.create_topic()
    time = place.after(2)

    async def play(context: Context, message: Message) -> None:
        await context.schedule(time)
        if message.key in WAYS:
            await cancel(context, message.key, time, place)

    first = Handler(place, play)
    client = place.client()
    await client.subscribe(first)
    await place.put_many([(key.encode(), 0) for key in (*WAYS, "plain")])
    await first.until_handled(4)
    await client.unsubscribe()
    await place.until_past(time)

    left: dict[str, list[datetime]] = {}

    async def look(context: Context, message: Message) -> None:
        left[message.key] = await context.scheduled()

    second = Handler(place, look)
    await place.client().subscribe(second)
    await second.until_fired(1)
    await place.put_many([(key.encode(), 1) for key in (*WAYS, "plain")])
    await second.until_handled(4)
    assert {run.key for run in first.of("timer") + second.of("timer")} == {"plain"}
    assert {key: len(times) for key, times in left.items()} == {
        "unschedule": 0,
        "clear": 0,
        "move": 1,
        "plain": 0,
    }
