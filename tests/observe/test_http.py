"""The HTTP server by itself: right answers, and no client that harms another."""

from __future__ import annotations

import asyncio
import errno
import json
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from prosody.observe import http as the_module
from prosody.observe.answer import Answer, Request, document, told
from tests.mutant import mutant
from tests.observe.fetch import DEADLINE_S, connected, fetch, raw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from prosody.observe.http import HttpServer


def echo(request: Request) -> Answer:
    return told(request, 200, "well", [f"{name}={value}" for name, value in request.query.items()])


def broken(_: Request) -> Answer:
    raise ZeroDivisionError("a bug")


def long(_: Request) -> Answer:
    return document("x" * 20_000_000)


@asynccontextmanager
async def served(module: Any = the_module, **limits: Any) -> AsyncIterator[tuple[HttpServer, int]]:
    server = module.HttpServer({"/echo": echo, "/broken": broken, "/long": long})
    before = {name: getattr(module, name) for name in limits}
    vars(module).update(limits)
    await server.start(0)
    try:
        assert server.port is not None
        yield server, server.port
    finally:
        vars(module).update(before)
        await server.stop()


async def answers(module: Any) -> None:
    async with served(module) as (_, port):
        reply = await fetch(port, "/echo?key=a%20b&key=c%2Fd&x=")
        assert (reply.status, reply.text) == (200, "well\nkey=c/d\nx=")
        assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert reply.headers["Content-Length"] == str(len(reply.text))
        assert reply.headers["Connection"] == "close"
        reply = await fetch(port, "/echo", accept="text/html, Application/JSON;q=0.9")
        assert json.loads(reply.text) == {"healthy": True, "summary": "well", "details": []}
        assert reply.headers["Content-Type"] == "application/json"


async def head_has_no_body(module: Any) -> None:
    async with served(module) as (_, port):
        reply = await fetch(port, "/echo", method="HEAD")
        assert (reply.status, reply.text, reply.headers["Content-Length"]) == (200, "", "4")
        assert (await raw(port, b"HEAD /echo HTTP/1.0\r\n\r\n")).endswith(b"\r\n\r\n")


async def refuses_what_is_not_there(module: Any) -> None:
    async with served(module) as (_, port):
        assert (await fetch(port, "/")).status == 404
        assert (await fetch(port, "/echo/more")).status == 404
        reply = await fetch(port, "/echo/")
        assert (reply.status, reply.headers["location"]) == (308, "/echo")
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            reply = await fetch(port, "/echo", method=method, body=b"{}")
            assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
        expecting = (
            b"POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
        )
        assert b" 405 " in await raw(port, expecting)


async def refuses_what_is_no_http(module: Any) -> None:
    async with served(module) as (_, port):
        assert b" 400 " in await raw(port, b"\x16\x03\x01\x02\x00 hello\r\n\r\n")
        assert b" 400 " in await raw(port, b"GET /echo HTTP/1.1\r\n\r\n")  # 1.1 names its host
        assert b" 431 " in await raw(port, b"GET /echo HTTP/1.1\r\nX: " + b"x" * 20_000)
        endless = (
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n" + b"x" * 80_000
        )
        assert await raw(port, endless) == b"" or b" 405 " in await raw(port, endless)
        assert (await fetch(port, "/echo")).status == 200


async def a_fault_of_a_route_is_told(module: Any) -> None:
    async with served(module) as (_, port):
        assert (await fetch(port, "/broken")).status == 500
        assert (await fetch(port, "/echo")).status == 200


async def cuts_off_who_is_slow_to_write(module: Any) -> None:
    async with served(module, DEADLINE_S=0.1) as (server, port):
        async with asyncio.timeout(DEADLINE_S):
            assert await raw(port, b"GET /echo HTTP/1.1\r\nHost: x\r\n") == b""
        assert not server._connections


async def cuts_off_who_is_slow_to_read(module: Any) -> None:
    async with (
        served(module, DEADLINE_S=0.1) as (server, port),
        connected(port, limit=1) as (reader, writer),
    ):
        writer.write(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await reader.read(10)
        async with asyncio.timeout(DEADLINE_S):
            while server._connections:  # noqa: ASYNC110  # nobody announces it
                await asyncio.sleep(0.01)


async def a_fresh_client_takes_the_place_of_the_oldest(module: Any) -> None:
    async with served(module, CONNECTIONS_MAX=3) as (server, port), AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(connected(port)) for _ in range(5)]
        async with asyncio.timeout(DEADLINE_S):
            assert await idle[0][0].read() == b""
            assert await idle[1][0].read() == b""
        assert (await fetch(port, "/echo")).status == 200
        assert len(server._connections) <= 3


async def one_request_for_each_connection(module: Any) -> None:
    async with served(module) as (_, port):
        ask = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
        assert (await raw(port, ask * 3)).count(b"200 OK") == 1
        assert (await raw(port, ask)).endswith(b"\r\n\r\nwell")


async def stop_cuts_off_who_is_connected(module: Any) -> None:
    async with served(module) as (server, port):
        async with connected(port) as (reader, _):
            assert (await fetch(port, "/echo")).status == 200
            async with asyncio.timeout(DEADLINE_S):
                await server.stop()
                assert await reader.read() == b""
        assert server.port is None
        with pytest.raises(OSError):  # noqa: PT011  # refused, in whatever words
            await asyncio.open_connection("127.0.0.1", port)
        await server.stop()
        await server.start(port)
        assert (await fetch(port, "/echo")).status == 200


async def a_port_that_is_taken_is_an_error(module: Any) -> None:
    async with served(module) as (_, port):
        other = module.HttpServer({})
        with pytest.raises(OSError) as refused:  # noqa: PT011  # its number is what counts
            await other.start(port)
        assert refused.value.errno == errno.EADDRINUSE
        await other.stop()


SCENARIOS: list[Callable[[Any], Awaitable[None]]] = [
    answers,
    head_has_no_body,
    refuses_what_is_not_there,
    refuses_what_is_no_http,
    a_fault_of_a_route_is_told,
    cuts_off_who_is_slow_to_write,
    cuts_off_who_is_slow_to_read,
    a_fresh_client_takes_the_place_of_the_oldest,
    one_request_for_each_connection,
    stop_cuts_off_who_is_connected,
    a_port_that_is_taken_is_an_error,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
async def test(scenario: Callable[[Any], Awaitable[None]]) -> None:
    await scenario(the_module)


MUTANTS: dict[str, tuple[Callable[[Any], Awaitable[None]], str, str]] = {
    "no deadline": (cuts_off_who_is_slow_to_write, "(DEADLINE_S, transport", "(900, transport"),
    "a deadline for the request alone": (
        cuts_off_who_is_slow_to_read,
        "        self._answered = True\n",
        "        self._answered = True\n        self._deadline.cancel()\n",
    ),
    "no limit of connections": (
        a_fresh_client_takes_the_place_of_the_oldest,
        ">= CONNECTIONS_MAX",
        ">= 900",
    ),
    "the newest is closed": (
        a_fresh_client_takes_the_place_of_the_oldest,
        "next(iter(self._connections)).abort()",
        "next(reversed(self._connections)).abort()",
    ),
    "any method will do": (refuses_what_is_not_there, 'not in (b"GET", b"HEAD")', "in ()"),
    "a slash more is another path": (refuses_what_is_not_there, 'path.endswith("/")', "False"),
    "a body is waited for": (
        refuses_what_is_not_there,
        "if self._http.they_are_waiting_for_100_continue:",
        "if False:",
    ),
    "a fault is not caught": (a_fault_of_a_route_is_told, "except Exception:", "except KeyError:"),
    "heads of any length": (refuses_what_is_no_http, "HEAD_MAX)", "10**9)"),
    "stop leaves connections": (
        stop_cuts_off_who_is_connected,
        "connection.abort()\n            await",
        "pass\n            await",
    ),
}


@pytest.mark.parametrize("name", list(MUTANTS))
async def test_mutant_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario, *change = MUTANTS[name]
    module = mutant("observe.http", *change)
    monkeypatch.setattr("tests.observe.fetch.DEADLINE_S", 0.5)
    monkeypatch.setattr("tests.observe.test_http.DEADLINE_S", 0.5)
    before = asyncio.all_tasks()
    with pytest.raises((AssertionError, KeyError, OSError, TimeoutError)):
        async with asyncio.timeout(3.0):
            await scenario(module)
    for task in asyncio.all_tasks() - before:
        task.cancel()


def test_the_library_alone_imports_no_http() -> None:
    code = "import sys, prosody; sys.exit('h11' in sys.modules or 'prosody.observe.http' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_line_says_one_thing() -> None:
    answer = told(Request(), 503, "bad", ["key 'a\nb'\r\nc \udcff"])
    assert answer.body == b"bad\nkey 'a b' c \\udcff"
    as_json = json.loads(told(Request(accept="application/json"), 503, "bad", ["x"]).body)
    assert as_json == {"healthy": False, "summary": "bad", "details": ["x"]}
    assert not Request(accept="text/plain, application/jsonp").wants_json
