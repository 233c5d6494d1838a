"""Traces that lie in the stores for a while: of timers, and of what is deferred, over a restart too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.durable.support import Failing, Handler
from tests.observe.tracers import Spans, context_of, is_child, is_linked

if TYPE_CHECKING:
    from prosody import Context, Message
    from tests.durable.support import Place


@pytest.mark.parametrize("restart", [False, True], ids=["one life", "restart"])
async def test_a_deferred_message_goes_on_in_the_trace_of_its_first_attempt(
    place: Place, spans: Spans, restart: bool
) -> None:
    """First attempts are linked to what was sent; all later ones are children of the first."""
    await place.create_topic()
    failing = Failing("k")
    handler = Handler(place, failing)
    client = place.client(message_spans="follows_from")
    await client.subscribe(handler)
    await client.send(place.topic, "k", 1)
    await handler.until(lambda h: h.failures("k") >= 2)
    if restart:
        await client.shutdown()
        failing.keys.clear()
        handler = Handler(place)
        client = place.client(message_spans="follows_from")
        await client.subscribe(handler)
    failing.keys.clear()
    await handler.until_handled(1)
    await client.shutdown()
    processed = spans.named(f"process {place.topic}")
    assert len(processed) >= 3
    assert is_linked(processed[0], spans.one(f"send {place.topic}"))
    assert all(is_child(later, processed[0]) for later in processed[1:])
    assert (processed[-1].attributes or {})["prosody.redelivered"] is True


async def test_what_was_deferred_behind_another_goes_on_in_its_own_first_attempt(
    place: Place, spans: Spans
) -> None:
    """It was stored without one: the retry timer keeps it, until its turn comes again."""
    await place.create_topic()
    left = {1: 2, 2: 2}

    async def fail_twice(context: Context, message: Message) -> None:
        left[message.payload] -= 1
        if left[message.payload] >= 0:
            raise ValueError(f"{left[message.payload]} more")

    handler = Handler(place, fail_twice)
    client = place.client(message_spans="follows_from")
    await client.subscribe(handler)
    await client.send(place.topic, "k", 1)
    await client.send(place.topic, "k", 2)
    await handler.until_handled(2)
    await client.shutdown()
    assert handler.handled("k") == [1, 2]
    sent = spans.named(f"send {place.topic}")
    for event in sent:
        offset = (event.attributes or {})["messaging.kafka.offset"]
        first, *later = [
            span
            for span in spans.named(f"process {place.topic}")
            if (span.attributes or {})["messaging.kafka.offset"] == offset
        ]
        assert is_linked(first, event)
        assert len(later) == 2
        assert all(is_child(each, first) for each in later)


@pytest.mark.parametrize("relation", ["child", "follows_from"])
async def test_a_timer_and_its_deferred_retries_go_on_in_the_trace_of_its_handler(
    place: Place, spans: Spans, relation: str
) -> None:
    await place.create_topic()
    failing = Failing("k")

    async def schedule(context: Context, message: Message) -> None:
        await context.schedule(place.after(2))

    handler = Handler(place, schedule, failing)
    client = place.client(timer_spans=relation)
    await client.subscribe(handler)
    await client.send(place.topic, "k", 1)
    await handler.until_handled(1)
    await client.shutdown()

    handler = Handler(place, schedule, failing)
    client = place.client(timer_spans=relation)
    await client.subscribe(handler)
    await handler.until(lambda h: h.failures("k") >= 2)
    failing.keys.clear()
    await handler.until_fired(1)
    await client.shutdown()

    processed = spans.one(f"process {place.topic}")
    fired = spans.named(f"timer {place.topic}")
    assert len(fired) >= 3
    related = is_child if relation == "child" else is_linked
    assert related(fired[0], processed)
    assert all(is_child(later, fired[0]) for later in fired[1:])
    same_trace = context_of(fired[0]).trace_id == context_of(processed).trace_id
    assert same_trace is (relation == "child")
