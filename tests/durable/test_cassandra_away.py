"""Cassandra freezes, then is killed and started again, under load: nothing is lost or run twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from prosody.errors import ProsodyError
from prosody.model.times import seconds_from_utc
from tests.durable.conftest import on_services
from tests.durable.support import Failing, Handler
from tests.durable.test_handover import holds
from tools.services import QUICK_JVM, CassandraServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from prosody import Context, Message
    from tests.durable.support import Place
    from tests.outages.support import Log

pytestmark = [pytest.mark.real, pytest.mark.timeout(420)]

PATIENCE_S = 90.0
PLAIN = [f"plain-{n}" for n in range(20)]
FLAKY = [f"flaky-{n}" for n in range(4)]
TIMERS_A_ROUND = 5


@pytest.fixture(scope="module")
def mortal(request: pytest.FixtureRequest) -> Iterator[CassandraServer]:
    """A Cassandra that may be killed; what it acknowledged survives that."""
    server = CassandraServer(
        settings={"commitlog_sync": "batch", "commitlog_sync_period": "0ms"},
        jvm_options=("-Xms512m", "-Xmx512m", *QUICK_JVM),
    )
    try:
        server.launch()
        request.getfixturevalue("kafka_bootstrap")  # comes up at the same time
        server.wait_until_ready()
        yield server
    finally:
        server.close()


@pytest.fixture
async def mortal_place(kafka_bootstrap: str, mortal: CassandraServer) -> AsyncIterator[Place]:
    found = on_services(kafka_bootstrap, mortal.address, "durable_outages")
    yield found
    await found.close()


class Load:
    """Rounds of messages without end: some plain, some that fail once, some that set a timer."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.rounds = 0
        self._ending = False
        self.sent: set[str] = set()
        self.begun: Counter[str] = Counter()
        self.set: dict[str, int] = {}
        """By key, which sets one timer and no more: its second, once that was acknowledged."""
        self.tried: set[tuple[str, int]] = set()
        self.handler = Handler(place, self._handle)

    async def _handle(self, context: Context, message: Message) -> None:
        id_ = message.payload["id"]
        self.begun[id_] += 1
        if message.key.startswith("timer"):
            # The attempt's own second, so that no later attempt sets what has fired already.
            time = self._place.after(2)
            self.tried.add((message.key, seconds_from_utc(time)))
            await context.clear_and_schedule(time)
            self.set[message.key] = seconds_from_utc(time)
        elif message.key.startswith("flaky") and self.begun[id_] == 1 and id_.endswith("5"):
            # Not each one: that costs its key a second, and many come while the store is away.
            raise ValueError("fails the first time")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        task = asyncio.create_task(self._run())
        try:
            yield self
        finally:
            # Not torn in the middle of a round: what was counted as sent was sent.
            self._ending = True
            await task

    async def _run(self) -> None:
        while not self._ending:
            n = self.rounds
            timers = [f"timer-{n}-{i}" for i in range(TIMERS_A_ROUND)]
            records = [(key.encode(), {"id": f"{key}:{n}"}) for key in (*PLAIN, *FLAKY, *timers)]
            await self._place.put_many(records)
            self.sent.update(value["id"] for _, value in records)
            self.rounds += 1
            await asyncio.sleep(0.1)  # a modest load: the machine has other things to do

    async def more(self, of: str, count: int) -> None:
        """Wait until ``count`` more runs have succeeded: ``of`` a kind and a family of keys."""
        goal = self.handler.done[of] + count
        await self.handler.until(lambda h: h.done[of] >= goal, PATIENCE_S)

    async def until_all(self) -> None:
        """Wait until every message was handled and every timer that was acknowledged has fired."""
        handler = self.handler
        try:
            await handler.until(lambda h: h.done["message"] >= len(self.sent), PATIENCE_S)
            await handler.until(lambda h: h.done["timer"] >= len(self.set), PATIENCE_S)
        except AssertionError as error:
            handled = {run.value["id"] for run in handler.of("message")}
            fired = {run.key for run in handler.of("timer")}
            left = sorted(self.sent - handled), sorted(set(self.set) - fired)
            raise AssertionError(f"left of {len(self.sent)}: {left}") from error


async def test_nothing_is_lost_and_no_handler_runs_again_because_of_it(
    mortal_place: Place,
    mortal: CassandraServer,
    log: Log,
    report: Callable[[str, object], None],
) -> None:
    await mortal_place.create_topic()
    load = Load(mortal_place)
    handler = load.handler
    client = mortal_place.client(retry_base=0.05, max_retry_delay=1.0, max_uncommitted=512)
    await client.subscribe(handler)
    async with load.running():
        await load.more("timer timer", 20)
        for how in ("frozen", "killed"):
            since = mortal_place.runtime.wall()
            await asyncio.to_thread(mortal.pause if how == "frozen" else mortal.kill)
            # Messages that need no timer flow meanwhile, those with an id included.
            await load.more("message plain", 400)
            await asyncio.to_thread(mortal.resume if how == "frozen" else mortal.start)
            report(f"{how} for (s)", round(mortal_place.runtime.wall() - since, 1))
            since = mortal_place.runtime.wall()
            await load.more("timer timer", 30)
            report("30 timers fired after (s)", round(mortal_place.runtime.wall() - since, 1))
            await load.more("message flaky", 10)
    await load.until_all()
    await mortal_place.nothing_left()
    await client.unsubscribe()
    report("messages, timers", (len(load.sent), len(load.set)))
    handled = Counter(run.value["id"] for run in handler.of("message"))
    assert set(handled) == load.sent, "something was lost"
    assert set(handled.values()) == {1}, "a handler that had succeeded ran again"
    begun = {id_: count for id_, count in load.begun.items() if id_.startswith("plain")}
    assert set(begun.values()) == {1}, "a message without a timer ran again"
    # The others failed for what their own handlers did, and for nothing else.
    errors = {type(run.error) for run in handler.of("message", ok=None) if not run.ok}
    assert all(kind is ValueError or issubclass(kind, ProsodyError) for kind in errors), errors
    fired = Counter((run.key, run.value) for run in handler.of("timer", ok=None))
    assert set(load.set.items()) <= set(fired), "a timer that was acknowledged never fired"
    # One that was not acknowledged may have been written all the same.
    assert set(fired) <= load.tried
    twice = [timer for timer, count in fired.items() if count > 1]
    assert not twice, f"fired twice: {twice}"
    for key in (*PLAIN, *FLAKY):
        rounds = [int(p["id"].partition(":")[2]) for p in handler.handled(key)]
        assert rounds == list(range(load.rounds)), key
    assert not handler.overlaps
    assert log.lines("prosody.", "Cassandra"), "an outage that the log says nothing about"


async def test_what_is_assigned_meanwhile_waits_and_goes_on_by_itself(
    mortal_place: Place, mortal: CassandraServer, log: Log
) -> None:
    """Which keys have deferred messages is not known: order comes before availability."""
    mortal.resume()
    await mortal_place.create_topic()
    failing = Failing("bad-0", "bad-1", "bad-2", "bad-3")
    first, second = Handler(mortal_place, failing), Handler(mortal_place, failing)
    keys = [*failing.keys, *PLAIN]

    async def put(n: int) -> None:
        await mortal_place.put_many([(key.encode(), n) for key in keys])

    one, two = mortal_place.client(), mortal_place.client()
    await one.subscribe(first)
    await put(0)
    await first.until(lambda h: len(h.handled()) == len(PLAIN))
    await mortal_place.nothing_left()
    await two.subscribe(second)
    await holds(two, 2)
    await asyncio.to_thread(mortal.pause)
    await one.unsubscribe()
    await holds(two, 4)
    await put(1)
    await log.until("WARNING prosody.", "Cassandra")
    await asyncio.to_thread(mortal.resume)
    failing.keys.clear()
    await second.until(
        lambda h: len(first.handled()) + len(h.handled()) == 2 * len(keys), PATIENCE_S
    )
    for key in keys:
        assert first.handled(key) + second.handled(key) == [0, 1], key
    await mortal_place.nothing_left()
