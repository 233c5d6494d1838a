"""An HTTP client for tests: urllib in a thread, and raw bytes for what no good client would send."""

from __future__ import annotations

import asyncio
import contextlib
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from typing import NamedTuple, TypeAlias

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

DEADLINE_S = 20.0


class Reply(NamedTuple):
    """What came back."""

    status: int
    text: str
    headers: dict[str, str]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


# No proxies: what runs on this machine is meant.
_OPENER = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))


async def fetch(
    port: int, path: str, *, method: str = "GET", body: bytes | None = None, accept: str = "*/*"
) -> Reply:
    """One request of an ordinary client."""

    def ask() -> Reply:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}", body, {"Accept": accept}, method=method
        )
        try:
            with _OPENER.open(request, timeout=DEADLINE_S) as reply:
                return Reply(reply.status, reply.read().decode(), dict(reply.headers))
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.read().decode(), dict(error.headers))

    return await asyncio.to_thread(ask)


@contextlib.asynccontextmanager
async def connected(port: int, **options: int) -> AsyncIterator[Streams]:
    """A connection that says nothing by itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def raw(port: int, data: bytes) -> bytes:
    """What comes back for some bytes until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(DEADLINE_S):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):  # cut off, which is what some tests want
            await writer.wait_closed()
