"""Reading from a socket what a readiness check needs."""

from __future__ import annotations

import socket

_LARGEST = 1 << 20


def receive_exactly(connection: socket.socket, size: int) -> bytes:
    """Read ``size`` bytes.

    Raises:
        OSError: the other side closed, the socket's time-out passed, or ``size`` is not sensible (then
            another kind of server is listening there).
    """
    if not 0 <= size <= _LARGEST:
        raise OSError(f"a frame of {size} bytes")
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionResetError("the server closed the connection")
        data += part
    return data
