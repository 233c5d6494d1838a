"""The five timer calls of a context, from messages and from timers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from prosody.model.times import seconds_from_utc, utc_from_seconds
from tests.durable.support import Handler

if TYPE_CHECKING:
    from prosody import Context, Message, Timer
    from tests.durable.support import Place

FAR = timedelta(days=300)


async def test_the_five_calls_from_a_message_and_from_a_timer(place: Place) -> None:
    await place.create_topic()
    listed: list[list[datetime]] = []
    goals: list[datetime] = []

    async def play(context: Context, event: Message | Timer) -> None:
        if len(goals) == 2:
            return  # the last timer has fired
        # None of these is due before the test is over, but the last.
        later = [place.after(3600), place.after(7200), utc_from_seconds(place.seconds()) + FAR]
        for time in reversed(later):
            await context.schedule(time)
        listed.append(await context.scheduled())
        await context.unschedule(later[1])
        listed.append(await context.scheduled())
        await context.clear_scheduled()
        listed.append(await context.scheduled())
        await context.schedule(later[0])
        goals.append(place.after(1))
        await context.clear_and_schedule(goals[-1])
        listed.append(await context.scheduled())
        assert listed[-4:] == [later, [later[0], later[2]], [], [goals[-1]]]

    handler = Handler(place, play, play)
    await place.client().subscribe(handler)
    await place.put({"play": 1}, key=b"k")
    await handler.until_fired(2)
    assert len(listed) == 8
    assert handler.fired("k") == [seconds_from_utc(goal) for goal in goals]
    assert all(run.ok for run in handler.runs)
    assert all(time.tzinfo is UTC for times in listed for time in times)


async def test_times_are_rounded_to_whole_seconds_and_none_fires_early(place: Place) -> None:
    await place.create_topic()
    base = place.after(2)
    parts = {"down": 499_999, "up": 500_000, "whole": 0, "almost": 999_999}

    async def schedule(context: Context, message: Message) -> None:
        await context.schedule(base + timedelta(microseconds=parts[message.key]))

    seen: list[Timer] = []

    async def see(context: Context, timer: Timer) -> None:
        seen.append(timer)

    handler = Handler(place, schedule, see)
    await place.client().subscribe(handler)
    await place.put_many([(key.encode(), 0) for key in parts])
    await handler.until_fired(len(parts))
    found = {timer.key: timer.time for timer in seen}
    second = timedelta(seconds=1)
    assert found == {"down": base, "whole": base, "up": base + second, "almost": base + second}
    assert min(run.late_s for run in handler.of("timer")) >= 0, "fired before its time"


async def test_the_past_fires_at_once(place: Place) -> None:
    await place.create_topic()
    past = {"first": 0, "long-ago": 5, "just": place.seconds() - 3600}

    async def schedule(context: Context, message: Message) -> None:
        await context.schedule(utc_from_seconds(past[message.key]))

    handler = Handler(place, schedule)
    await place.client().subscribe(handler)
    await place.put_many([(key.encode(), 0) for key in past])
    await handler.until_fired(len(past))
    assert {run.key: run.value for run in handler.of("timer")} == past


async def test_a_time_is_there_once_for_each_key(place: Place) -> None:
    await place.create_topic()
    time = place.after(2)

    async def schedule(context: Context, message: Message) -> None:
        for off_ms in (0, 0, -300, 300):
            await context.schedule(time + timedelta(milliseconds=off_ms))
        # Proof of the end: whatever fires twice does so before.
        await context.schedule(time + timedelta(seconds=1))
        assert await context.scheduled() == [time, time + timedelta(seconds=1)]

    handler = Handler(place, schedule)
    await place.client().subscribe(handler)
    await place.put_many([(b"a", 0), (b"b", 0), (b"a", 1)])
    await handler.until_fired(4)
    at = seconds_from_utc(time)
    assert handler.fired("a") == handler.fired("b") == [at, at + 1]


@pytest.mark.parametrize("again", ["same", "past"])
async def test_a_timer_may_set_itself_again(place: Place, again: str) -> None:
    await place.create_topic()
    times: list[datetime] = []

    async def schedule(context: Context, message: Message) -> None:
        await context.schedule(place.after(1))

    async def chain(context: Context, timer: Timer) -> None:
        times.append(timer.time)
        if len(times) < 3:
            back = timedelta(0 if again == "same" else 1)
            await context.schedule(timer.time - back)

    handler = Handler(place, schedule, chain)
    await place.client().subscribe(handler)
    await place.put(0)
    await handler.until_fired(3)
    step = timedelta(0 if again == "same" else 1)
    assert times == [times[0] - n * step for n in range(3)]
