"""A real Apache Kafka for the demo: the one that runs already, or one of its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from tools.services import KafkaServer


@contextlib.contextmanager
def kafka(say: Callable[[str], None]) -> Iterator[str]:
    """The address of a Kafka; one that was started here is ended and removed at the end.

    :raises tools.services.ServiceError: it could not be started; the text says what to do.
    """
    running = os.environ.get(KafkaServer.variable)
    if running:
        say(f"Using the Kafka of {KafkaServer.variable}: {running}")
        yield running
        return
    say("Starting a real Apache Kafka on this machine (its jars are fetched once) ...")
    with KafkaServer() as server:
        say(f"Apache Kafka runs at {server.address}, started in {server.started_in_s or 0:.1f} s.")
        yield server.address
