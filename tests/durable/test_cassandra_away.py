"""Cassandra freezes, then is killed and started again, under load: nothing is lost or run twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.client.probing import ALIVE, ask, probed
from tests.durable.away import PATIENCE_S, PLAIN, Load
from tests.durable.conftest import on_services
from tests.durable.support import Failing, Handler
from tests.durable.test_handover import holds
from tests.servers import mortal_cassandra

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.durable.support import Place
    from tests.outages.support import Log
    from tools.services import CassandraServer

pytestmark = [pytest.mark.real, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def mortal(request: pytest.FixtureRequest) -> Iterator[CassandraServer]:
    """A Cassandra that may be killed; what it acknowledged survives that."""
    server = mortal_cassandra()
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


async def test_nothing_is_lost_and_no_handler_runs_again_because_of_it(
    mortal_place: Place,
    mortal: CassandraServer,
    log: Log,
    report: Callable[[str, object], None],
) -> None:
    await mortal_place.create_topic()
    load = Load(mortal_place)
    client = mortal_place.client(retry_base=0.05, max_retry_delay=1.0, max_uncommitted=512)
    await client.subscribe(load.handler)
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
    load.judge()
    await load.next_owner_finds_nothing()
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

    one, two = mortal_place.client(), probed(mortal_place)
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
    ready = await ask(two, "/readyz")
    first_line, *others = ready.text.split("\n")
    assert (ready.status, first_line) == (200, "4 partitions assigned")
    assert any("Cassandra" in line for line in others)
    assert (await ask(two, "/livez"))[:2] == ALIVE
    await asyncio.to_thread(mortal.resume)
    failing.keys.clear()
    await second.until(
        lambda h: len(first.handled()) + len(h.handled()) == 2 * len(keys), PATIENCE_S
    )
    for key in keys:
        assert first.handled(key) + second.handled(key) == [0, 1], key
    await mortal_place.nothing_left()
