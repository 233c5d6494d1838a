"""The telemetry of one client, assembled: a buffer, who reports into it, and who writes what is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.telemetry.buffer import Buffer
from prosody.telemetry.emitter import Emitter
from prosody.telemetry.encoder import Encoder
from prosody.telemetry.reports import SentReports

if TYPE_CHECKING:
    from collections.abc import Callable

    from prosody.broker.protocol import Broker, Headers, ProducerSettings, SentRecord
    from prosody.config import Config
    from prosody.runtime import Runtime


class ClientTelemetry:
    """What a client has of it: nothing where ``telemetry_enabled`` is false. Making it does no I/O."""

    def __init__(
        self, config: Config, broker: Broker, settings: ProducerSettings, runtime: Runtime
    ) -> None:
        self.events: Buffer | None = None
        """Where events wait; layers and timers put theirs here. None: nothing is reported."""
        self.sent: Callable[[SentRecord, bytes | None, Headers], None] | None = None
        """Reports a record that was acknowledged."""
        self.emitter: Emitter | None = None
        if config.telemetry.telemetry_enabled:
            topic = config.telemetry.telemetry_topic
            core = config.core
            encoder = Encoder(topic, core.group_id, core.source_system, settings.client_id)
            self.events = Buffer()
            self.sent = SentReports(self.events, runtime).sent
            self.emitter = Emitter(broker, settings, topic, self.events, encoder, runtime)

    def begin(self, *, subscribed: bool = False) -> None:
        """See :meth:`Emitter.begin`."""
        if self.emitter is not None:
            self.emitter.begin(subscribed=subscribed)

    async def rest(self) -> None:
        """See :meth:`Emitter.rest`."""
        if self.emitter is not None:
            await self.emitter.rest()

    async def stop(self) -> None:
        """See :meth:`Emitter.stop`."""
        if self.emitter is not None:
            await self.emitter.stop()
