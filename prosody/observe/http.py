"""A small HTTP server in the event loop of the consumer: answers GET from a table of routes.

h11 reads and writes HTTP. Servers that come with loops, workers, signal handlers and logs of their own were
passed over (docs/DESIGN.md says why); what they lack, and a health check needs, is here: everything has a
limit, so that no client can take the place of another.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

import h11

from prosody.observe.answer import Answer, Request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prosody.observe.answer import Route

_log = logging.getLogger("prosody.probes")

HOST: Final = "0.0.0.0"  # noqa: S104  # whoever asks for health asks from outside, as in the reference
CONNECTIONS_MAX: Final = 64
"""Open at once. One more closes the one that has been open for longest: a fresh health check gets in,
whatever the others wait for."""
DEADLINE_S: Final = 5.0
"""From the first moment of a connection to its last, however slowly its client writes or reads."""
HEAD_MAX: Final = 8 * 1024
BODY_MAX: Final = 64 * 1024
"""Bytes of a request; a body is read, because it must be gone before the answer, and thrown away."""


class HttpServer:
    """Life cycle: new -> started -> stopped. One request for each connection, which then closes."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        """:param routes: by path, which begins with a slash and does not end with one."""
        self._routes = routes
        self._server: asyncio.Server | None = None
        self._connections: dict[Connection, None] = {}
        """In the order in which they were opened."""
        self._stopped = False
        self._all_gone: asyncio.Future[None] | None = None
        self.port: int | None = None
        """Where it listens; None unless it does."""

    async def start(self, port: int) -> None:
        """Listen on ``port``; 0 takes any free one.

        :raises OSError: the port is taken, or may not be.
        """
        loop = asyncio.get_running_loop()
        self._stopped = False
        self._server = await loop.create_server(lambda: Connection(self), HOST, port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more, and cut off who is still connected."""
        self._stopped = True
        server, self._server, self.port = self._server, None, None
        if server is None:
            return
        server.close()
        if self._connections:
            self._all_gone = asyncio.get_running_loop().create_future()
            for connection in tuple(self._connections):
                connection.abort()
            await self._all_gone
        await server.wait_closed()

    # Called by connections

    def opened(self, connection: Connection) -> None:
        if self._stopped:
            connection.abort()  # accepted in the very turn of the stop
        elif len(self._connections) >= CONNECTIONS_MAX:
            next(iter(self._connections)).abort()
        self._connections[connection] = None

    def closed(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        if not self._connections and self._all_gone is not None and not self._all_gone.done():
            self._all_gone.set_result(None)

    def answer(self, request: h11.Request) -> Answer | asyncio.Future[Answer]:
        """What a request gets, now or later. Does not raise."""
        path, _, query = request.target.decode("ascii").partition("?")
        route = self._routes.get(path)
        if route is None:
            if path.endswith("/") and path[:-1] in self._routes:
                return _refusal(HTTPStatus.PERMANENT_REDIRECT, location=path[:-1])
            return _refusal(HTTPStatus.NOT_FOUND)
        if request.method not in (b"GET", b"HEAD"):
            return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, allow="GET, HEAD")
        accept = ",".join(v.decode("latin-1") for name, v in request.headers if name == b"accept")
        try:
            return route(Request(dict(parse_qsl(query, keep_blank_values=True)), accept))
        except Exception:  # noqa: BLE001
            return _fault(path)


class Connection(asyncio.Protocol):
    """One client: reads a request, answers, closes."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX)
        self._request: h11.Request | None = None
        self._body = 0
        self._answered = False
        self._late: asyncio.Future[Answer] | None = None
        """An answer that is being made."""
        self._transport: asyncio.Transport
        self._deadline: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._deadline = asyncio.get_running_loop().call_later(DEADLINE_S, transport.abort)
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        self._server.closed(self)

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._answered or self._late is not None:
            return
        try:
            self._http.receive_data(data)
            complete = self._read()
        except h11.RemoteProtocolError as error:
            self._send(_refusal(HTTPStatus(error.error_status_hint)))
            return
        if complete:
            assert self._request is not None, "its end comes after its beginning"
            answer = self._server.answer(self._request)
            if isinstance(answer, Answer):
                self._send(answer)
            else:
                self._late = answer
                answer.add_done_callback(self._send_late)

    def _send_late(self, answer: asyncio.Future[Answer]) -> None:
        if answer.cancelled():
            self.abort()  # the loop is on its way out
            return
        error = answer.exception()
        if not self._transport.is_closing():
            self._send(answer.result() if error is None else _fault("a request", error))

    def _read(self) -> bool:
        """Take what has come; whether it is time to answer.

        :raises h11.RemoteProtocolError: it is no HTTP, or too long.
        """
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                self._request = event
                if self._http.they_are_waiting_for_100_continue:
                    return True  # no route wants a body, so it need not be sent
            elif isinstance(event, h11.Data):
                self._body += len(event.data)
                if self._body > BODY_MAX:
                    return True
            elif isinstance(event, h11.EndOfMessage):
                return True
            else:
                if isinstance(event, h11.ConnectionClosed):
                    self._transport.close()
                return False

    def _send(self, answer: Answer) -> None:
        self._answered = True
        headers = [
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Connection", "close"),
            *answer.headers,
        ]
        reason = HTTPStatus(answer.status).phrase
        write = self._transport.write
        write(
            self._http.send(h11.Response(status_code=answer.status, headers=headers, reason=reason))
            or b""
        )
        if self._request is None or self._request.method != b"HEAD":
            write(self._http.send(h11.Data(data=answer.body)) or b"")
        self._transport.close()  # what a slow reader has not taken is sent, until the deadline


def _fault(path: str, error: BaseException | bool = True) -> Answer:
    """A fault of ours; the consumer is not to suffer for it, and who asked is to know."""
    _log.error("internal fault in the answer to %s; please report this", path, exc_info=error)
    return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR)


def _refusal(status: HTTPStatus, **headers: str) -> Answer:
    return Answer(status, status.phrase.encode(), headers=tuple(headers.items()))
