"""Timers whose handler fails, or is not there; timers in the other modes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from prosody import EventHandler, PermanentError
from prosody.model.times import seconds_from_utc
from tests.client.support import unique
from tests.client.test_modes import read_all
from tests.durable.support import Failing, Handler

if TYPE_CHECKING:
    from prosody import Context, Message
    from tests.durable.support import Place
    from tests.outages.support import Log


@pytest.mark.parametrize("defer_enabled", [True, False])
async def test_a_failed_timer_runs_again_until_it_succeeds_and_later_ones_wait_for_it(
    place: Place, defer_enabled: bool
) -> None:
    await place.create_topic()
    times = [place.after(seconds) for seconds in (1, 2, 3)]
    failing = Failing("bad")

    async def schedule(context: Context, message: Message) -> None:
        for time in times:
            await context.schedule(time)

    handler = Handler(place, schedule, failing)
    await place.client(defer_enabled=defer_enabled).subscribe(handler)
    await place.put_many([(b"bad", 0), (b"good", 0)])
    await handler.until_fired(3, "good")
    await handler.until(lambda h: h.failures("bad") >= 2)
    failing.keys.clear()
    await handler.until_fired(3, "bad")
    seconds = [seconds_from_utc(time) for time in times]
    assert handler.fired("bad") == handler.fired("good") == seconds
    failed = {run.value for run in handler.of("timer", "bad", ok=False)}
    assert failed == {seconds[0]}, "a later timer ran before the head had succeeded"


async def test_a_timer_that_fails_for_good_is_dropped_and_said(place: Place, log: Log) -> None:
    await place.create_topic()
    failing = Failing("bad", error=PermanentError("no such customer"))

    async def schedule(context: Context, message: Message) -> None:
        await context.schedule(place.after(1))
        await context.schedule(place.after(2))

    handler = Handler(place, schedule, failing)
    client = place.client()
    await client.subscribe(handler)
    await place.put_many([(b"bad", 0), (b"good", 0)])
    await handler.until(lambda h: len(h.fired("good")) == h.failures("bad") == 2)
    await place.put(1, key=b"bad")
    await handler.until(lambda h: h.handled("bad") == [0, 1])
    assert not handler.fired("bad")
    assert len(log.lines("failed permanently", "'bad'")) == 2
    await client.unsubscribe()
    again = Handler(place)
    await client.subscribe(again)
    await place.put(2, key=b"bad")
    await again.until_handled(1)
    assert not again.fired(), "what was dropped came again"


class Deaf(EventHandler):
    """Sets timers, and has no ``on_timer``."""

    def __init__(self, place: Place) -> None:
        self.inner = Handler(place, self._schedule)
        self._place = place

    async def _schedule(self, context: Context, message: Message) -> None:
        if message.payload == 0:
            await context.schedule(self._place.after(1))

    async def on_message(self, context: Context, message: Message) -> None:
        await self.inner.on_message(context, message)


async def test_a_handler_without_on_timer_is_told_and_its_key_goes_on(
    place: Place, log: Log
) -> None:
    await place.create_topic()
    handler = Deaf(place)
    await place.client().subscribe(handler)
    await place.put(0)
    await handler.inner.until_handled(1)
    await log.until("on_timer", "'k'")
    await place.put(1)
    await handler.inner.until_handled(2)
    await place.nothing_left()


MODES: dict[str, dict[str, Any]] = {"best-effort": {}, "low-latency": {"max_retries": 1}}


@pytest.mark.parametrize("mode", MODES)
async def test_the_other_modes_have_timers_too(place: Place, mode: str, log: Log) -> None:
    await place.create_topic()
    failed = await place.create_topic(unique("failed"), partitions=1)
    time = place.after(1)

    async def schedule(context: Context, message: Message) -> None:
        if message.payload == 0:
            await context.schedule(time)

    handler = Handler(place, schedule, Failing("bad"))
    options = {"mode": mode, **MODES[mode]}
    if mode == "low-latency":
        options["failure_topic"] = failed
    await place.client(**options).subscribe(handler)
    await place.put_many([(b"bad", 0), (b"good", 0)])
    await handler.until_fired(1, "good")
    attempts = 2 if mode == "low-latency" else 1
    await handler.until(lambda h: h.failures("bad") == attempts)
    if mode == "low-latency":
        (letter,) = await read_all(place, failed, 1)
        headers = dict(letter.headers)
        assert letter.key == b"bad"
        assert headers["source-kind"] == b"timer"
        assert headers["source-error"] == b"the dependency is down"
    else:
        assert len(log.lines("lost", "'bad'")) == 1
    # Done with: its key goes on, and it does not fire again.
    await place.put(1, key=b"bad")
    await handler.until(lambda h: h.handled("bad") == [0, 1])
    assert handler.failures("bad") == attempts
