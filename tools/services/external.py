"""A server that runs already and that somebody else started."""

from __future__ import annotations

from typing import NoReturn

from tools.services.errors import ServiceError


class ExternalServer:
    """Stands where a :class:`Server` would, for an address from an environment variable.

    It gives the address and refuses everything that would need the process.
    """

    controllable = False

    def __init__(self, title: str, variable: str, address: str) -> None:
        # Several may be named, as clients accept them; tests use the first.
        first = address.split(",", maxsplit=1)[0].strip()
        host, colon, port = first.rpartition(":")
        if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ServiceError(f"{variable}={address!r} is not host:port, such as localhost:9092")
        self.title = title
        self.variable = variable
        self.address = first
        self.host = host
        self.port = int(port)

    def _refuse(self, what: str) -> NoReturn:
        raise ServiceError(
            f"cannot {what} {self.title} at {self.address}: it was not started here, "
            f"{self.variable} points at it; unset {self.variable} to run this"
        )

    def stop(self) -> NoReturn:
        """Refused."""
        self._refuse("stop")

    def start(self) -> NoReturn:
        """Refused."""
        self._refuse("start")

    def kill(self) -> NoReturn:
        """Refused."""
        self._refuse("kill")

    def restart(self) -> NoReturn:
        """Refused."""
        self._refuse("restart")

    def pause(self) -> NoReturn:
        """Refused."""
        self._refuse("pause")

    def resume(self) -> NoReturn:
        """Refused."""
        self._refuse("resume")
