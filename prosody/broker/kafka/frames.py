"""What a connection of aiokafka receives, told as soon as the last byte of an answer is here.

aiokafka reads by a task, which takes a turn of the event loop to wake, and hands on what it has read in a
future, which takes another. Private parts of it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    import io

_SIZE: Final = struct.Struct(">i")
_HEAD: Final = struct.Struct(">ii")
_LEAST: Final = _HEAD.size - _SIZE.size
"""The size of an answer that is nothing but a number."""
_CORRELATION_AT: Final = 8
"""In a request: behind its size, and the number and the version of what is asked."""


class Asking(Protocol):
    """Who waits for an answer: as much of a future as aiokafka's connection uses."""

    def done(self) -> bool:
        """Whether it wants no answer any more."""
        ...

    def set_result(self, answer: bytes) -> None:
        """The answer is here, without its size. Does not raise."""
        ...

    def set_exception(self, error: BaseException) -> None:
        """There will be none. Does not raise."""
        ...


class _Header(NamedTuple):
    correlation_id: int


class _Whole:
    """An answer as its bytes."""

    @staticmethod
    def decode(data: io.BytesIO) -> bytes:
        return data.getvalue()


class _Request:
    """What aiokafka's connection keeps of a request under way: how its answer is read."""

    RESPONSE_TYPE = _Whole

    @staticmethod
    def parse_response_header(data: io.BytesIO) -> _Header:
        return _Header(*_SIZE.unpack(data.read(_SIZE.size)))


_REQUEST: Final = _Request()


class Frames:
    """Requests and answers of one connection, between those that aiokafka sends on it.

    Answers come in the order of their requests, so aiokafka's list of those decides whose an answer is. A
    broker sends the records of an answer apart from what stands before them, so that many come in two
    pieces. Whatever else is received goes the usual way, and so does an answer whose first piece does not
    show whose it is.
    """

    def __init__(self, connection: Any) -> None:
        """
        :param connection: one that is quiet: see :func:`is_quiet`.
        """
        self.connection = connection
        self._reader = connection._reader
        self._feed = self._reader.feed_data
        self._pieces: list[bytes] = []
        """As much of an answer as has come."""
        self._left = 0
        """So many bytes of it are still to come."""
        self._missing = 0
        """Bytes of a frame on its usual way that are still to come."""
        self._size = b""
        """As much of its size as came apart from the rest."""
        self.received_at = 0.0
        """When the last answer was complete, by the event loop."""
        self._reader.feed_data = self._received

    def send(self, request: bytearray, asking: Asking) -> bool:
        """Send a request, size included, whose answer has a header of version 0; False: not connected."""
        connection = self.connection
        if connection._writer is None:
            return False
        number = connection._next_correlation_id()
        _SIZE.pack_into(request, _CORRELATION_AT, number)
        connection._requests.append((number, _REQUEST, asking))
        connection._writer.write(bytes(request))  # a copy, because the transport may keep it
        return True

    def _received(self, data: bytes) -> None:
        """In place of the reader's ``feed_data``."""
        connection = self.connection
        requests = connection._requests
        if self._left:
            self._pieces.append(data[: self._left])
            rest = data[self._left :]
            self._left -= len(data) - len(rest)
            if self._left:
                return
            answer = b"".join(self._pieces)
            self._pieces.clear()
        elif (
            requests
            and requests[0][1] is _REQUEST
            and not self._missing
            and not self._size
            and not self._reader._buffer
            and len(data) >= _HEAD.size
            and (head := _HEAD.unpack_from(data))[1] == requests[0][0]
            and head[0] >= _LEAST
        ):
            end = _SIZE.size + head[0]
            answer, rest = data[_SIZE.size : end], data[end:]
            if len(data) < end:
                self._pieces.append(answer)
                self._left = end - len(data)
                return
        else:
            self._follow(data)
            self._feed(data)
            return
        _, _, asking = requests.popleft()
        connection._last_action = self.received_at = connection._loop.time()  # as aiokafka does
        if not asking.done():
            asking.set_result(answer)
        if rest:
            self._received(rest)

    def _follow(self, data: bytes) -> None:
        """Keep in mind where the frame ends that is being received."""
        at, end = 0, len(data)
        while at < end:
            if self._missing:
                step = min(self._missing, end - at)
                self._missing -= step
            else:
                step = min(_SIZE.size - len(self._size), end - at)
                self._size += data[at : at + step]
                if len(self._size) == _SIZE.size:
                    # One below 0 ends the connection as soon as aiokafka reads it.
                    self._missing = max(0, *_SIZE.unpack(self._size))
                    self._size = b""
            at += step


def is_quiet(connection: Any) -> bool:
    """Whether nothing is asked and nothing received, so that the next byte begins an answer."""
    reader = connection._reader
    return reader is not None and not connection._requests and not reader._buffer
