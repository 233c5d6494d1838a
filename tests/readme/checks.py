"""What the named examples of the README must do, besides running: one check each."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from opentelemetry.sdk.trace import TracerProvider

from prosody import Context, Message, PermanentError
from prosody.broker.memory import MemoryCluster
from tests.readme.document import Block
from tests.readme.support import Watched, execute, sent, subscribed

Check = Callable[[Block, pytest.CaptureFixture[str]], Awaitable[None]]
CHECKS: dict[str, Check] = {}
"""By the example's name."""


def check(name: str) -> Callable[[Check], Check]:
    def keep(function: Check) -> Check:
        CHECKS[name] = function
        return function

    return keep


@check("create-topic")
async def _(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = MemoryCluster.shared()
    made: list[str] = []
    cluster.on_call = lambda call, client: made.append(call)
    await execute(block)
    assert made == ["create_topic", "delete_topic"]
    assert not cluster.topics()


@check("look-inside")
async def _(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    handler = Watched()
    async with subscribed(handler) as client:
        await client.send("orders", "customer-7", {})
        await handler.next_call()
        await execute(block, client=client)
    first, *partitions = capsys.readouterr().out.splitlines()
    assert first.startswith("key 'customer-7': nothing is known of it in the ")
    assert len(partitions) >= 1
    assert all(" None" in line for line in partitions)


@check("health")
async def _(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    handler = Watched()
    async with subscribed(handler) as client:
        await client.send("orders", "k", {})
        await handler.next_call()
        names = await execute(block, client=client)
        assert (names["ready"], names["alive"]) == (True, True)
        await client.unsubscribe()
        names = await execute(block, client=client)
        assert (names["ready"], names["alive"]) == (False, True)


@check("repeated-ids")
async def _(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    async with subscribed(Watched()) as client:
        await execute(block, client=client)
    assert sorted((key, payload["n"]) for key, payload, _ in sent("orders")) == [
        ("key-1", 1),
        ("key-2", 3),
    ]


@check("unsubscribe")
async def _(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    async with subscribed(Watched()) as client:
        await execute(block, client=client)
        assert await client.consumer_state() == "configured"


@check("send-in-span")
async def _(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    tracer = TracerProvider().get_tracer("test")
    async with subscribed(Watched()) as client:
        await client.send("orders", "customer-6", 1)
        await execute(block, client=client, tracer=tracer)
    headers = {key: set(headers) for key, _, headers in sent("orders")}
    assert headers["customer-6"] == {"source-system"}
    assert headers["customer-7"] == {"source-system", "traceparent"}


@check("timers")
async def _(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    names = await execute(block)
    handler = Watched(names["ReminderHandler"]())
    async with subscribed(handler) as client:
        await client.send("orders", "customer-7", {})
        assert await handler.next_call() == (WithPayload({}), None)
    assert capsys.readouterr().out == "2 timers are set\n"


async def _permanent(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    names = await execute(block)
    handler = Watched(names["OrderHandler"]())
    async with subscribed(handler, mode="pipeline") as client:
        for payload in ({"no": "total"}, {"total": None}, {"total": 1}):
            await client.send("orders", "customer-7", payload)
        # In pipeline mode a transient failure would be repeated before the next message comes.
        for cause in (KeyError, TypeError):
            _, error = await handler.next_call()
            assert isinstance(error, PermanentError)
            assert isinstance(error.__cause__, cause)
        assert await handler.next_call() == (WithPayload({"total": 1}), None)
    assert capsys.readouterr().out == "customer-7: 2\n"


class WithPayload:
    """Equal to every message with this payload."""

    def __init__(self, payload: Any) -> None:
        self.payload = payload

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Message) and other.payload == self.payload

    __hash__ = None  # type: ignore[assignment]


CHECKS["permanent-by-decorator"] = _permanent
CHECKS["permanent-by-raising"] = _permanent


@check("offset-of-each-key")
async def _(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    names = await execute(block)
    with closing(sqlite3.connect(":memory:")) as database:
        handler = names["AccountHandler"](database)
        no_context = cast("Context", None)
        # Two keys of one partition, the later offset first, and everything delivered twice.
        for key, offset in (("a", 0), ("b", 2), ("a", 1), ("a", 0), ("b", 2), ("a", 1)):
            payload = {"amount": 10**offset}
            now = datetime.now(UTC)
            await handler.on_message(no_context, Message("orders", 0, offset, now, key, payload))
        balances = dict(database.execute("SELECT key, balance FROM account"))
        assert balances == {"a": 11, "b": 100}


@check("clean-up-on-cancel")
async def _(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    names = await execute(block)
    inner = names["ReportHandler"]()
    handler = Watched(inner)
    async with subscribed(handler, mode="best-effort", timeout="50ms") as client:
        await client.send("orders", "customer-7", {"seconds": 3600})
        _, error = await handler.next_call()
    assert isinstance(error, asyncio.CancelledError)
    assert inner.open_reports == set()


@check("ask-in-thread")
async def _(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    names = await execute(block)
    crunch, ended = names["crunch"], []
    names["crunch"] = lambda context, rows: ended.append(crunch(context, rows))
    handler = Watched(names["BatchHandler"]())
    async with subscribed(handler, mode="best-effort", timeout="200ms") as client:
        await client.send("orders", "customer-7", {"rows": 1})
        assert await handler.next_call() == (WithPayload({"rows": 1}), None)
        await client.send("orders", "customer-7", {"rows": 10_000_000})
        _, error = await handler.next_call()
    assert isinstance(error, asyncio.CancelledError)
    # The handler ended after its thread, and the thread early.
    assert ended[0] == 1
    assert 0 < ended[1] < 10_000_000
