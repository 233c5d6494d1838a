"""Free TCP ports for servers that are started for a while."""

from __future__ import annotations

import errno
import random
import socket

# Below every common ephemeral range (Linux 32768 up, macOS and Windows 49152 up). A port from inside
# it can be taken by any outgoing connection between the choice and the bind, or while a server is
# down for a restart; and a client that knocks at such a port while nobody listens can connect to itself.
_LOWEST = 12_000
_HIGHEST = 31_999
_TRIES = 200

# Not the shared generator: a test run that seeds it would hand out the same ports in every process.
_choose = random.SystemRandom()
_handed_out: set[int] = set()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on, never the same twice in one process.

    Raises:
        OSError: no free port was found in the range.
    """
    for _ in range(_TRIES):
        port = _choose.randint(_LOWEST, _HIGHEST)
        if port in _handed_out:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                # Taken: the next number may not be.
                continue
        _handed_out.add(port)
        return port
    raise OSError(errno.EADDRINUSE, f"no free port between {_LOWEST} and {_HIGHEST}")
