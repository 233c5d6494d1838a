"""Members come and go while keys fail, and partitions are added: nothing is lost, nothing reordered."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from prosody.model.times import seconds_from_utc
from tests.client.support import eventually
from tests.durable.support import Failing, Handler

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prosody import Context, Message, ProsodyClient
    from tests.broker.levers import Levers
    from tests.durable.support import Place
    from tests.outages.support import Log

BAD = [f"bad-{n}" for n in range(24)]
GOOD = [f"good-{n}" for n in range(12)]


async def holds(client: ProsodyClient, partitions: int) -> None:
    async def look() -> bool:
        return await client.assigned_partition_count() == partitions

    await eventually(look, f"it should hold {partitions} partitions")


def rounds(first: int, count: int, keys: Iterable[str]) -> list[tuple[bytes, int]]:
    return [(key.encode(), n) for n in range(first, first + count) for key in keys]


def once_in_order(handlers: list[Handler], keys: Iterable[str], count: int) -> None:
    """Over all members: each message was handled once, and none began before the one ahead of it."""
    for key in keys:
        runs = [run for handler in handlers for run in handler.of("message", key, ok=None)]
        runs.sort(key=lambda run: run.began)
        assert [run.value for run in runs if run.ok] == list(range(count)), key
        assert [run.value for run in runs] == sorted(run.value for run in runs), key
    assert not any(handler.overlaps for handler in handlers)


async def test_a_rolling_handover_in_the_middle_of_deferral(place: Place) -> None:
    """One joins while keys fail, the first leaves while their backlogs drain."""
    await place.create_topic()
    failing = Failing(*BAD)
    timer = place.after(2)

    scheduled: set[str] = set()

    async def behave(context: Context, message: Message) -> None:
        if message.key not in scheduled:
            # In the first attempt only: another one may come when the time is past.
            scheduled.add(message.key)
            await context.schedule(timer)
        await failing(context, message)
        await place.runtime.sleep(0.005)

    handlers = [Handler(place, behave) for _ in range(3)]
    clients = [place.client(shutdown_timeout=10.0) for _ in range(3)]

    def handled() -> int:
        return sum(len(handler.handled()) for handler in handlers)

    def all_handled(count: int) -> bool:
        return handled() >= count * len(BAD + GOOD)

    await clients[0].subscribe(handlers[0])
    await place.put_many(rounds(0, 6, BAD + GOOD))
    await handlers[0].until(lambda h: len(h.handled()) == 6 * len(GOOD))
    await place.nothing_left()
    # A second member, to which deferred work moves.
    await clients[1].subscribe(handlers[1])
    await holds(clients[1], 2)
    await place.put_many(rounds(6, 4, BAD + GOOD))
    await handlers[1].until(lambda h: sum(h.failures(key) for key in BAD) >= 8)
    # They recover, and in the middle of the draining the first one leaves, and a third one comes.
    failing.keys.clear()
    await handlers[0].until(lambda h: any(run.key in BAD for run in h.of("message")))
    await clients[0].unsubscribe()
    await place.put_many(rounds(10, 2, BAD + GOOD))
    await clients[2].subscribe(handlers[2])

    async def done() -> bool:
        return all_handled(12)

    await eventually(done, "everything should be handled")
    await eventually(lambda: fired(handlers, len(BAD + GOOD)), "every timer should have fired")
    await place.nothing_left()
    once_in_order(handlers, BAD + GOOD, 12)
    timers = Counter((run.key, run.value) for h in handlers for run in h.of("timer", ok=None))
    assert timers == Counter((key, seconds_from_utc(timer)) for key in BAD + GOOD)


async def fired(handlers: list[Handler], count: int) -> bool:
    return sum(len(handler.fired()) for handler in handlers) >= count


async def test_after_partitions_are_added_timers_and_deferred_messages_stay(
    place: Place, levers: Levers, log: Log
) -> None:
    """What was set in a partition fires there, at once and after a restart; the change is told once."""
    await place.create_topic(partitions=2)
    failing = Failing(*BAD)
    early, late = place.after(2), place.after(4)

    async def behave(context: Context, message: Message) -> None:
        if message.key in GOOD:
            for time in (early, late):
                await context.schedule(time)
        await failing(context, message)

    first, second = Handler(place, behave), Handler(place, behave)
    client = place.client(metadata_max_age=0.5)
    await client.subscribe(first)
    await place.put_many(rounds(0, 2, BAD))
    await place.put_many(rounds(0, 1, GOOD))
    await first.until(lambda h: len(h.handled()) == len(GOOD) and len(h.of("message", ok=None)) > 2)
    await place.nothing_left()
    await levers.add_partitions(place.topic, 6)
    await holds(client, 6)
    await first.until_fired(len(GOOD))
    await client.shutdown()
    failing.keys.clear()
    other = place.client()
    await other.subscribe(second)
    await second.until(lambda h: len(h.handled()) == 2 * len(BAD))
    await second.until(lambda h: len(first.fired()) + len(h.fired()) == 2 * len(GOOD))
    for key in GOOD:
        assert first.fired(key) + second.fired(key) == [
            seconds_from_utc(early),
            seconds_from_utc(late),
        ]
    for key in BAD:
        assert first.handled(key) + second.handled(key) == [0, 1]
    assert {run.offset[0] for run in second.of("message") if run.offset} <= {0, 1}
    await other.unsubscribe()
    # And once more, to see that it is not said again.
    await other.subscribe(Handler(place))
    await holds(other, 6)
    await other.unsubscribe()
    told = log.lines("partitions", "2", "6", place.topic, logger="prosody")
    assert len(told) == 1, told
