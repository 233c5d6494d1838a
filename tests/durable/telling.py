"""A telemetry topic of its own for a test, and clients that write to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.telemetry.shapes import Events, brief

if TYPE_CHECKING:
    from prosody import ProsodyClient
    from tests.durable.support import Place


class Told:
    """A telemetry topic, and clients that write to it."""

    def __init__(self, place: Place, topic: str) -> None:
        self.place = place
        self.topic = topic
        self.events = Events(place, topic)

    def client(self, **options: Any) -> ProsodyClient:
        return self.place.client(telemetry_enabled=True, telemetry_topic=self.topic, **options)

    async def of(self, client: ProsodyClient, *names: str) -> list[tuple[Any, ...]]:
        """All events, once the client has left its group."""
        await client.unsubscribe()
        return brief(await self.events.all(), *names)
