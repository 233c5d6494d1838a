"""What a subscription needs of its stores: assembled once, for its partitions and its layers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from prosody.broker.protocol import ReaderSettings
from prosody.consume.counted_stores import counted
from prosody.consume.decode import decode
from prosody.consume.durable import Durables
from prosody.deferral.loader import Loader
from prosody.middleware.stacks import Kept
from prosody.observe.tracing import current_trace

if TYPE_CHECKING:
    from prosody.broker.protocol import Broker, BrokerConsumer
    from prosody.config import Config
    from prosody.consume.counts import Counts
    from prosody.model.handler import HandlerMethods
    from prosody.observe.storm import Storms
    from prosody.runtime import Runtime
    from prosody.stores.protocol import Stores
    from prosody.telemetry.buffer import Buffer


class Keeping:
    """The stores of a subscription, and what is made of them. Making it does no I/O."""

    def __init__(
        self,
        config: Config,
        stores: Stores,
        broker: Broker,
        consumer: BrokerConsumer,
        methods: HandlerMethods,
        client_id: str,
        runtime: Runtime,
        storms: Storms,
        counts: Counts,
        events: Buffer | None = None,
    ) -> None:
        """:param events: where telemetry events go."""
        group_id = config.core.group_id
        assert group_id is not None, "checked before a consumer is made"
        deferring = config.defer if config.mode == "pipeline" else None
        self.stores = stores
        self.durables = Durables(
            counted(stores.timers, "timers", counts),
            counted(stores.deferred, "deferred", counts),
            group_id,
            deferring,
            config.consumer.max_uncommitted,
            consumer.partition_count,
            current_trace,
            runtime,
            storms,
            events=events,
        )
        self.loader: Loader | None = None
        if deferring is not None and not stores.keeps_records:
            settings = ReaderSettings(
                client_id, deferring.defer_seek_timeout, deferring.defer_discard_threshold
            )
            self.loader = Loader(broker.reader(settings), deferring.defer_cache_size)
        self.kept = Kept(
            stores.dedup,
            self.loader,
            partial(decode, runtime=runtime, excise=methods.on_excise is not None),
        )

    async def stop(self) -> None:
        """Close all connections."""
        try:
            if self.loader is not None:
                await self.loader.stop()
        finally:
            await self.stores.stop()
