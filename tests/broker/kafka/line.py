"""A connection of aiokafka whose other end is the test: byte by byte, or behind a socket."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import TYPE_CHECKING, Any

from aiokafka.conn import AIOKafkaConnection, AIOKafkaProtocol
from aiokafka.protocol.admin import ApiVersionRequest, ApiVersionResponse_v0

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

VERSIONS = {1: (0, 11), 18: (0, 0)}
LIMIT_S = 10.0


def request(number: int = 0) -> bytearray:
    """A fetch without a body; nobody here looks into it."""
    return bytearray(struct.pack(">ihhih", 10, 1, 11, number, -1))


def frame(number: int, body: bytes) -> bytes:
    return struct.pack(">ii", 4 + len(body), number) + body


def lookup(said: int) -> bytes:
    """What answers a request of aiokafka's own; ``said`` tells one from another."""
    return bytes(ApiVersionResponse_v0(said, []).encode())


class Asked:
    """An asking that notes what it is told, and where from."""

    def __init__(self, *, done: bool = False) -> None:
        self.answers: list[bytes] = []
        self.errors: list[BaseException] = []
        self.by: list[asyncio.Task[Any] | None] = []
        """The task that told; None: a callback."""
        self.told = asyncio.Event()
        self._done = done

    def done(self) -> bool:
        return self._done

    def set_result(self, answer: bytes) -> None:
        self.answers.append(answer)
        self.by.append(asyncio.current_task())
        self.told.set()

    def set_exception(self, error: BaseException) -> None:
        self.errors.append(error)
        self._done = True
        self.told.set()

    async def wait(self) -> None:
        async with asyncio.timeout(LIMIT_S):
            await self.told.wait()


class Ears(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


class Line:
    """A connection of aiokafka as after ``connect``, whose other end is the test."""

    def __init__(self, versions: dict[int, tuple[int, int]] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.connection: Any = AIOKafkaConnection("nowhere", 1, client_id="me")
        connection = self.connection
        connection._versions = VERSIONS if versions is None else versions
        connection._closed_fut = loop.create_future()
        self.reader: Any = asyncio.StreamReader(loop=loop)
        protocol = AIOKafkaProtocol(connection._closed_fut, self.reader, loop=loop)
        self.ears = Ears()
        connection._reader, connection._protocol = self.reader, protocol
        connection._writer = asyncio.StreamWriter(self.ears, protocol, self.reader, loop)
        connection._read_task = connection._create_reader_task()

    @property
    def number(self) -> int:
        """That of the last request."""
        assert self.ears.written, "nothing was sent"
        number: int = struct.unpack_from(">i", self.ears.written[-1], 8)[0]
        return number

    def own(self) -> asyncio.Task[Any]:
        """A request of aiokafka's own."""
        return asyncio.create_task(self.lookup(self.connection.send(ApiVersionRequest())))

    @staticmethod
    async def lookup(answer: Any) -> Any:
        """What was said; anything that is no such answer as it is."""
        found = await answer
        return getattr(found, "error_code", found)

    def feed(self, data: bytes) -> None:
        self.reader.feed_data(data)

    def close(self) -> None:
        self.connection.close()


@contextlib.asynccontextmanager
async def open_line() -> AsyncIterator[Line]:
    line = Line()
    try:
        await turns()
        yield line
    finally:
        line.close()
        await turns()


async def turns() -> None:
    """Enough of the event loop for all that is ready."""
    for _ in range(10):
        await asyncio.sleep(0)


class Broker:
    """Says what the test says; what it is asked it only keeps."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[bytes] = asyncio.Queue()
        self.writer: Any = None
        self._ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                self.asked.put_nowait(await reader.readexactly(size))
        writer.close()
        self._ended.set()

    async def answer(self, body: bytes) -> None:
        """Answer the oldest request that is not answered."""
        async with asyncio.timeout(LIMIT_S):
            asked = await self.asked.get()
        self.writer.write(frame(struct.unpack_from(">i", asked, 4)[0], body))

    async def ended(self) -> None:
        async with asyncio.timeout(LIMIT_S):
            await self._ended.wait()


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[Broker, Any]]:
    broker = Broker()
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    connection = AIOKafkaConnection("127.0.0.1", server.sockets[0].getsockname()[1])
    connecting = asyncio.create_task(connection.connect())
    await broker.answer(bytes(ApiVersionResponse_v0(0, [(1, 0, 11), (18, 0, 0)]).encode()))
    await connecting
    try:
        yield broker, connection
    finally:
        await connection.close()
        await broker.ended()
        server.close()
        await server.wait_closed()
