"""Timers outlive their client; they and the messages of a key follow one another."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from prosody.model.times import seconds_from_utc
from tests.durable.support import Handler

if TYPE_CHECKING:
    from datetime import datetime

    from prosody import Context, Message, Timer
    from tests.durable.support import Place

KEYS = [f"key-{n}" for n in range(12)]


def times_of(place: Place, offsets: tuple[int, ...]) -> list[datetime]:
    return [place.after(offset) for offset in offsets]


async def test_timers_survive_a_subscription_and_a_client(place: Place) -> None:
    """The second of three times is due while nobody is there, the last one at a second client."""
    await place.create_topic()
    times = times_of(place, (1, 2, 4))

    async def schedule(context: Context, message: Message) -> None:
        for time in times:
            await context.schedule(time)

    first, second, third = Handler(place, schedule), Handler(place), Handler(place)
    client = place.client()
    await client.subscribe(first)
    await place.put_many([(key.encode(), 0) for key in KEYS])
    await first.until_fired(len(KEYS))
    await client.unsubscribe()
    await place.until_past(times[1])
    await client.subscribe(second)
    await second.until(lambda h: len(first.fired()) + len(h.fired()) == 2 * len(KEYS))
    await client.shutdown()
    other = place.client()
    await other.subscribe(third)
    await third.until(
        lambda h: len(first.fired()) + len(second.fired()) + len(h.fired()) == 3 * len(KEYS)
    )
    await other.unsubscribe()
    seconds = [seconds_from_utc(time) for time in times]
    for key in KEYS:
        assert first.fired(key) + second.fired(key) + third.fired(key) == seconds, key
    assert not first.overlaps + second.overlaps + third.overlaps


async def test_a_key_runs_one_thing_at_a_time_and_keys_run_together(place: Place) -> None:
    await place.create_topic()
    together = 0

    async def work(context: Context, event: Message | Timer) -> None:
        nonlocal together
        together = max(together, sum(handler.running.values()))
        await place.runtime.sleep(0.02)

    async def schedule(context: Context, message: Message) -> None:
        await context.schedule(place.after(1))
        await context.schedule(place.after(2))
        await work(context, message)

    handler = Handler(place, schedule, work)
    await place.client().subscribe(handler)
    # Messages all the time, so that timers come due in the middle of them.
    rounds = 0
    until = place.after(3)
    while place.runtime.wall() < seconds_from_utc(until):
        rounds += 1
        await place.put_many([(key.encode(), rounds) for key in KEYS])
        await handler.until_handled((rounds - 1) * len(KEYS))
    await handler.until_handled(rounds * len(KEYS))
    await handler.until(lambda h: h.runs[-1].began > seconds_from_utc(until) + 1)
    assert handler.overlaps == 0
    assert together > 1
    assert min(run.late_s for run in handler.of("timer")) >= 0
    for key in KEYS:
        assert handler.handled(key) == list(range(1, rounds + 1))
        assert handler.fired(key) == sorted(set(handler.fired(key)))


@pytest.mark.parametrize("flood", ["messages", "timers"])
async def test_neither_messages_nor_timers_shut_the_others_out(place: Place, flood: str) -> None:
    """One kind fills all places it has, with handlers that do not end; the other goes on."""
    await place.create_topic(partitions=1)
    release = asyncio.Event()

    async def message(context: Context, message: Message) -> None:
        if message.key == "sets":
            await context.schedule(place.after(2))
        elif message.key.startswith("stuck"):
            if flood == "messages":
                await release.wait()
            else:
                await context.schedule(place.after(0))

    async def timer(context: Context, timer: Timer) -> None:
        if timer.key.startswith("stuck"):
            await release.wait()

    handler = Handler(place, message, timer)
    client = place.client(max_uncommitted=4, max_concurrency=64)
    await client.subscribe(handler)
    await place.put(0, key=b"sets")
    await handler.until_handled(1)
    await place.put_many([(b"stuck-%d" % n, n) for n in range(20)])

    def full(h: Handler) -> bool:
        running = [key for key, count in h.running.items() if count and key.startswith("stuck")]
        return len(running) >= 4

    await handler.until(full)
    if flood == "messages":
        await handler.until_fired(1, "sets")
        # The flood has its places all the time.
        assert full(handler)
    else:
        await place.put(1, key=b"free")
        await handler.until(lambda h: h.handled("free") == [1])
        assert full(handler)
    release.set()
    await handler.until(lambda h: not any(h.running.values()))
