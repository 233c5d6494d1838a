"""Asking a client for its health over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.client.support import eventually
from tests.observe.fetch import Reply, fetch

if TYPE_CHECKING:
    from prosody import ProsodyClient
    from tests.client.support import Place

ALIVE = (200, "No stalled components.")
DEAD = "Consumer-level actor or one or more partitions have stalled. See logs for more details."


def probed(place: Place, **options: Any) -> ProsodyClient:
    """A client that is asked over HTTP; for that it must not be in mock mode."""
    return place.client(**{"mock": False, "probe_port": 0, **options})


def port_of(client: ProsodyClient) -> int:
    consumer = client._consumer
    assert consumer is not None
    port = consumer.probes.port
    assert port is not None
    return port


async def ask(client: ProsodyClient, path: str, **options: Any) -> Reply:
    return await fetch(port_of(client), path, **options)


async def until(client: ProsodyClient, path: str, status: int) -> Reply:
    replies: list[Reply] = []

    async def look() -> bool:
        replies.append(await ask(client, path))
        return replies[-1].status == status

    await eventually(look, f"{path} should answer {status}")
    return replies[-1]
