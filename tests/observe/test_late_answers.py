"""Routes whose answers are made in a thread: the server goes on, whatever becomes of client and answer."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from prosody.observe.answer import Answer, Request, told
from prosody.observe.http import HttpServer
from tests.observe.fetch import DEADLINE_S, connected, fetch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest


class Later:
    """A route whose answers the test gives."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[asyncio.Future[Answer]] = asyncio.Queue()

    def __call__(self, _: Request) -> asyncio.Future[Answer]:
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.asked.put_nowait(answer)
        return answer

    async def next(self) -> asyncio.Future[Answer]:
        async with asyncio.timeout(DEADLINE_S):
            return await self.asked.get()


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Later, HttpServer, int]]:
    later = Later()
    server = HttpServer({"/later": later, "/now": lambda request: told(request, 200, "now")})
    await server.start(0)
    try:
        assert server.port is not None
        yield later, server, server.port
    finally:
        await server.stop()


async def test_others_are_answered_meanwhile() -> None:
    async with served() as (later, _, port):
        asking = asyncio.create_task(fetch(port, "/later"))
        answer = await later.next()
        assert (await fetch(port, "/now")).text == "now"
        assert not asking.done()
        answer.set_result(told(Request(), 200, "later"))
        assert (await asking)[:2] == (200, "later")


async def test_a_fault_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with served() as (later, _, port):
        asking = asyncio.create_task(fetch(port, "/later"))
        (await later.next()).set_exception(ZeroDivisionError("a bug"))
        assert (await asking).status == 500
        assert "internal fault" in caplog.text
        assert "a bug" in caplog.text


async def test_a_client_may_be_gone_or_the_answer_never_come() -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: faults.append(what))
    async with served() as (later, server, port):
        async with connected(port) as (_, writer):
            writer.write(b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n")
            gone = await later.next()
        async with asyncio.timeout(DEADLINE_S):
            while server._connections:  # noqa: ASYNC110  # nobody announces it
                await asyncio.sleep(0.01)
        gone.set_result(told(Request(), 200, "too late"))
        async with connected(port) as (reader, writer):
            writer.write(b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n")
            (await later.next()).cancel()
            async with asyncio.timeout(DEADLINE_S):
                assert await reader.read() == b""
    assert not faults


async def test_what_a_client_sends_meanwhile_asks_for_nothing_more() -> None:
    async with served() as (later, _, port), connected(port) as (reader, writer):
        writer.write(b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await later.next()
        writer.write(b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await fetch(port, "/now")).status == 200  # so what was sent before is there
        answer.set_result(told(Request(), 200, "once"))
        async with asyncio.timeout(DEADLINE_S):
            assert (await reader.read()).count(b"once") == 1
        assert later.asked.empty()
