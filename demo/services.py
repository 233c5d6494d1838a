"""A real Apache Kafka and a real Apache Cassandra for the demo: those that run already, or its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tools.services import SERVERS, Server


class Services(NamedTuple):
    """Their addresses."""

    kafka: str
    cassandra: str


@contextlib.contextmanager
def real_services(say: Callable[[str], None]) -> Iterator[Services]:
    """A Kafka and a Cassandra; what was started here is ended and removed at the end.

    :raises tools.services.ServiceError: one could not be started; the text says what to do.
    """
    found: dict[str, str] = {}
    own: dict[str, Server] = {}
    for name, kind in SERVERS.items():
        running = os.environ.get(kind.variable)
        if running:
            say(f"Using the {kind.title} of {kind.variable}: {running}")
            found[name] = running
        else:
            own[name] = kind()
    with contextlib.ExitStack() as stack:
        if own:
            titles = " and ".join(server.title for server in own.values())
            say(f"Starting {titles} on this machine (their jars are fetched once) ...")
        # All at once, and then all are waited for.
        for server in own.values():
            stack.callback(server.close)
            server.launch()
        for name, server in own.items():
            server.wait_until_ready()
            say(f"{server.title} runs at {server.address} after {server.started_in_s or 0:.1f} s.")
            found[name] = server.address
        yield Services(**found)
