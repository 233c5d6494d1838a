"""Timer calls that are not possible: after the event has ended, or without a store."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from prosody import ContextError
from tests.durable.support import Failing, Handler

if TYPE_CHECKING:
    from prosody import Context, Message, Timer
    from tests.durable.support import Place


def calls(context: Context, place: Place) -> dict[str, Any]:
    """Each timer call, by its name."""
    time = place.after(1)
    return {
        "schedule": partial(context.schedule, time),
        "clear_and_schedule": partial(context.clear_and_schedule, time),
        "unschedule": partial(context.unschedule, time),
        "clear_scheduled": context.clear_scheduled,
        "scheduled": context.scheduled,
    }


async def all_refuse(context: Context, place: Place, *texts: str) -> None:
    for name, call in calls(context, place).items():
        with pytest.raises(ContextError, match=name) as refused:
            await call()
        assert all(text in str(refused.value) for text in texts), refused.value


async def test_after_its_event_a_context_refuses(place: Place) -> None:
    await place.create_topic()
    kept: list[Context] = []

    async def keep(context: Context, event: Message | Timer) -> None:
        kept.append(context)
        if len(kept) == 1:
            await context.schedule(place.after(0))

    handler = Handler(place, keep, keep)
    client = place.client()
    await client.subscribe(handler)
    await place.put(0)
    await handler.until_fired(1)
    await place.put(1)  # begins when the timer's run is over
    await handler.until_handled(2)
    for context in kept[:2]:
        await all_refuse(context, place, "after its event has ended", "'k'")
        assert context.should_cancel()
        await context.on_cancel()


async def test_the_context_of_a_deferred_attempt_refuses_too(place: Place) -> None:
    """A later attempt has a context of its own."""
    await place.create_topic()
    kept: list[Context] = []
    failing = Failing("k")

    async def keep(context: Context, message: Message) -> None:
        kept.append(context)
        await failing(context, message)

    handler = Handler(place, keep)
    await place.client().subscribe(handler)
    await place.put(0)
    await place.nothing_left()  # deferred: its offset is done
    failing.keys.clear()
    await handler.until_handled(1)
    await place.put(1)
    await handler.until_handled(2)
    for context in kept[:-1]:
        await all_refuse(context, place, "after its event has ended")


async def test_without_a_store_timer_calls_name_the_option_and_messages_flow(
    services: Place,
) -> None:
    async def refused(context: Context, message: Message) -> None:
        await all_refuse(context, services, "cassandra_nodes", "PROSODY_CASSANDRA_NODES")

    await services.create_topic()
    handler = Handler(services, refused)
    await services.without_stores().subscribe(handler)
    await services.put_many([(b"key-%d" % n, {"id": f"id-{n}"}) for n in range(20)])
    await handler.until_handled(20)
    await services.nothing_left()


async def test_without_a_store_failures_are_retried_in_place(services: Place) -> None:
    await services.create_topic(partitions=1)
    failing = Failing("bad")
    handler = Handler(services, failing)
    await services.without_stores().subscribe(handler)
    await services.put_many([(b"bad", 0), (b"bad", 1), (b"good", 2)])
    await handler.until(lambda h: h.failures("bad") >= 3 and h.handled("good") == [2])
    assert await services.lag() > 0
    failing.keys.clear()
    await handler.until(lambda h: h.handled("bad") == [0, 1])
    await services.nothing_left()
