"""A topic and a group of its own for each test, on a real Kafka."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prosody.broker.kafka import KafkaBroker
from prosody.broker.protocol import OffsetAndMetadata
from prosody.runtime import SystemRuntime
from tests.processes.fleet import Fleet
from tests.processes.load import Load
from tools.look import KafkaLook, Offsets

PARTITIONS = 8
CLIENT: dict[str, Any] = {
    "source_system": "tests",
    "assignor": "cooperative",
    "session_timeout": 6.0,
    "shutdown_timeout": 20.0,
    "commit_interval": 0.5,
    "max_concurrency": 8,
    "telemetry_enabled": False,
    "probe_port": None,
    # Nothing but the commits may keep a record from running twice.
    "idempotence_cache_size": 0,
}


class Scene:
    """One topic, one group, and what goes on there."""

    def __init__(self, folder: Path, bootstrap: str) -> None:
        self.topic = f"processes-{uuid.uuid4().hex[:8]}"
        self.group = f"fleet-{uuid.uuid4().hex[:8]}"
        self.broker = KafkaBroker((bootstrap,), runtime=SystemRuntime())
        self._folder = folder
        self._bootstrap = bootstrap
        self._look = KafkaLook(bootstrap, self.topic, self.group)

    async def begin(self) -> None:
        await self.create_topic(self.topic, PARTITIONS)
        await self._look.start()

    async def create_topic(self, topic: str, partitions: int) -> None:
        admin = self.broker.admin()
        try:
            await admin.create_topic(topic, partitions=partitions)
        finally:
            await admin.stop()

    async def end(self) -> None:
        await self._look.stop()

    def fleet(
        self, kind: type[Fleet] = Fleet, *, client: dict[str, Any] | None = None, **work: Any
    ) -> Fleet:
        """Members of this group; ``work`` is for their handlers."""
        options = {
            **CLIENT,
            "bootstrap_servers": self._bootstrap,
            "group_id": self.group,
            "subscribed_topics": self.topic,
            **(client or {}),
        }
        return kind(self._folder, options, work)

    def load(self, fleet: Fleet, waiting: Mapping[str, int], seed: int = 0) -> Load:
        """Keeps so many records of each key waiting."""
        return Load(self.broker, self.topic, fleet, waiting, seed=seed)

    async def offsets(self) -> dict[int, Offsets]:
        """What the broker has of this topic and group, by an independent look."""
        return await self._look.offsets()

    async def committed(self) -> dict[int, OffsetAndMetadata]:
        """What the group has committed, notes included."""
        return await self._look.committed()
