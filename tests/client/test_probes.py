"""Health over HTTP, as an orchestrator sees it: while all is well, and while something is not."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from typing import TYPE_CHECKING, Any

import pytest

from prosody import ConfigurationError
from prosody.errors import BrokerError
from prosody.stores.memory import MemoryStoreState
from tests.client.probing import ALIVE, DEAD, ask, port_of, probed, until
from tests.client.support import Place, Recorder, eventually
from tests.observe.fetch import connected, fetch

if TYPE_CHECKING:
    from prosody import Context, Message


class Gate:
    """Lets handlers end when it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, context: Context, message: Message) -> None:
        await self.open.wait()


async def test_a_day_of_a_client(place: Place) -> None:
    """Over both brokers: ready, stalled and well again, shutting down, gone."""
    await place.create_topic(partitions=3)
    client = probed(place, stall_threshold=1.0, timeout=60.0, debug_endpoint=True)
    gate = Gate()
    recorder = Recorder(gate)
    await client.subscribe(recorder)
    reply = await until(client, "/readyz", 200)
    assert reply.text == "3 partitions assigned"
    assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert (await ask(client, "/livez"))[:2] == ALIVE
    assert json.loads((await ask(client, "/readyz", accept="application/json")).text) == {
        "healthy": True,
        "summary": "3 partitions assigned",
        "details": [],
    }

    await place.put({"n": 1}, key=b"customer-7")
    await recorder.until(lambda r: len(r.attempts) == 1)
    await place.put({"n": 2}, key=b"customer-7")
    reply = await until(client, "/livez", 503)
    message = recorder.attempts[0]
    summary, line = reply.text.split("\n")
    assert summary == DEAD
    assert f"topic {place.topic!r} partition {message.partition} offset 0 key 'customer-7'" in line
    assert re.search(
        r" is unfinished for \d+ s: its handler runs \(attempt 1\), for \d+\.\d s", line
    )
    assert (await ask(client, "/readyz")).status == 200
    where = f"topic={place.topic}&partition={message.partition}"

    async def second_came() -> bool:
        text = (await ask(client, f"/debug/why?{where}&offset=1")).text
        return "it waits behind another message of its key" in text

    await eventually(second_came, "the second message waits behind the first")
    assert "its handler runs" in (await ask(client, "/debug/why?key=customer-7")).text
    state = json.loads((await ask(client, "/debug/state")).text)
    assert len(state["stalled"]) == 1
    (run,) = state["runs"]
    assert (run["key"], run["offset"]) == ("customer-7", 0)
    assert sum(p["uncommitted"] for p in state["partitions"]) == 2

    gate.open.set()
    await until(client, "/livez", 200)
    gate.open.clear()
    await place.put({"n": 3})
    await recorder.until(lambda r: len(r.attempts) == 3)
    port = port_of(client)
    stopping = asyncio.create_task(client.unsubscribe())
    reply = await until(client, "/readyz", 503)
    assert reply.text == "shutting down\n3 partitions assigned"
    gate.open.set()
    await stopping
    with pytest.raises(OSError, match="refused"):
        await fetch(port, "/readyz")


on_memory = pytest.mark.parametrize("place", ["memory"], indirect=True)


@on_memory
async def test_kafka_is_away(place: Place) -> None:
    await place.create_topic(partitions=2)
    client = probed(place)
    await client.subscribe(Recorder())
    await until(client, "/readyz", 200)
    place.cluster.outage()
    reply = await until(client, "/readyz", 503)
    assert reply.text == (
        "connection to Kafka lost: the broker cannot be reached\n2 partitions assigned"
    )
    assert (await ask(client, "/livez"))[:2] == ALIVE
    place.cluster.restore()
    assert (await until(client, "/readyz", 200)).text == "2 partitions assigned"


@on_memory
async def test_a_store_that_is_down_changes_the_text_and_not_the_status(place: Place) -> None:
    await place.create_topic(partitions=2)
    client = probed(place, mode="pipeline")
    await client.subscribe(Recorder())
    await until(client, "/readyz", 200)
    place.cluster.attached(MemoryStoreState).outage("no node answers")
    reply = await ask(client, "/readyz")
    assert (reply.status, reply.text) == (200, "2 partitions assigned\nno node answers")
    assert (await ask(client, "/livez"))[:2] == ALIVE
    place.cluster.attached(MemoryStoreState).restore()
    assert (await ask(client, "/readyz")).text == "2 partitions assigned"


@on_memory
async def test_nothing_assigned(place: Place) -> None:
    await place.create_topic(partitions=1)
    clients = [probed(place), probed(place)]
    for client in clients:
        await client.subscribe(Recorder())

    async def one_each() -> bool:
        replies = sorted([(await ask(client, "/readyz"))[:2] for client in clients])
        return replies == [(200, "1 partitions assigned"), (503, "no partitions assigned")]

    await eventually(one_each, "one is ready and one has nothing")


@on_memory
async def test_a_port_that_is_taken_is_named_and_leaves_nothing_running(place: Place) -> None:
    await place.create_topic()
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        client = probed(place, probe_port=port)
        calls: list[str] = []
        place.cluster.on_call = lambda name, _: calls.append(name)
        with pytest.raises(ConfigurationError, match=f"probe_port={port} .*PROSODY_PROBE_PORT"):
            await client.subscribe(Recorder())
        assert calls == []  # the group has not heard of it
        assert await client.consumer_state() == "configured"
    await client.subscribe(Recorder())
    await until(client, "/readyz", 200)
    assert port_of(client) == port


@on_memory
async def test_a_failed_subscribe_frees_the_port(place: Place) -> None:
    await place.create_topic()
    client = probed(place)

    def refuse(name: str, _: str) -> None:
        if name == "start":
            raise BrokerError("refused", retriable=False)

    place.cluster.on_call = refuse
    with pytest.raises(BrokerError):
        await client.subscribe(Recorder())
    place.cluster.on_call = None
    await client.subscribe(Recorder())
    port = port_of(client)
    await client.unsubscribe()
    again = probed(place, probe_port=port)
    await again.subscribe(Recorder())
    assert port_of(again) == port


@on_memory
@pytest.mark.parametrize("options", [{"probe_port": None}, {"mock": True, "probe_port": 0}])
async def test_no_server(place: Place, options: dict[str, Any]) -> None:
    await place.create_topic()
    client = probed(place, **options)
    await client.subscribe(Recorder())
    assert client._consumer is not None
    assert client._consumer.probes.port is None


@on_memory
async def test_the_inner_state_is_served_only_when_switched_on(place: Place) -> None:
    await place.create_topic(partitions=1)
    client = probed(place)
    await client.subscribe(Recorder())
    for path in ("/debug/state", "/debug/why?key=k"):
        assert (await ask(client, path)).status == 404
    await client.unsubscribe()
    client = probed(place, debug_endpoint=True)
    await client.subscribe(Recorder())
    await until(client, "/readyz", 200)
    for query in ("", "?topic=t", "?partition=0&offset=1", "?topic=t&partition=x&offset=1"):
        reply = await ask(client, f"/debug/why{query}")
        assert (reply.status, "ask with ?topic=T" in reply.text) == (400, True)
    reply = await ask(client, f"/debug/why?topic={place.topic}&partition=7&offset=1")
    assert (reply.status, "is not assigned to this client" in reply.text) == (200, True)
    reply = await ask(client, "/debug/why?key=k", accept="application/json")
    assert "nothing is known of it" in json.loads(reply.text)["summary"]
    (partition,) = json.loads((await ask(client, "/debug/state")).text)["partitions"]
    assert (partition["state"], partition["uncommitted"]) == ("running", 0)


@on_memory
async def test_slow_clients_do_not_hold_up_handlers_or_the_end(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "prosody.probes")
    await place.create_topic(partitions=1)
    client = probed(place)
    recorder = Recorder()
    await client.subscribe(recorder)
    (line,) = [r.getMessage() for r in caplog.records if r.name == "prosody.probes"]
    assert line == f"health checks are answered on 0.0.0.0, port {port_of(client)}"
    async with connected(port_of(client)) as (_, writer):
        writer.write(b"GET /readyz HTTP/1.1\r\nHos")
        await place.put(1)
        await recorder.until_handled(1)
        async with asyncio.timeout(3.0):
            await client.unsubscribe()
