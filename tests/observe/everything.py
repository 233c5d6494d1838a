"""Two clients that use every feature there is, and what they export: scraped, and collected by the SDK."""

from __future__ import annotations

import asyncio
import functools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client.parser import text_string_to_metric_families

from prosody import Context, Message, ProsodyClient, Timer
from prosody.broker.memory import MemoryBroker, MemoryCluster
from prosody.observe.metric_table import (
    DEFERRAL_CLOSED,
    FAULTS,
    QUEUED,
    SCHEDULER_WAITING,
    STALLED,
    TABLE,
    TELEMETRY_DROPPED,
    WAITING,
    Kind,
)
from prosody.observe.prometheus import name_of
from prosody.runtime import SystemRuntime
from prosody.stores.memory import MemoryStoreState
from tests.client.support import DEADLINE_S, Place
from tests.observe.fetch import fetch
from tools.look import MemoryLook

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

PROVIDER = "opentelemetry.metrics._internal._METER_PROVIDER"
"""By a private name: a program can set its provider only once."""
ZERO = {
    metric.name
    for metric in (
        *(STALLED, FAULTS, WAITING, QUEUED, SCHEDULER_WAITING, DEFERRAL_CLOSED),
        TELEMETRY_DROPPED,
    )
}
"""What stays at 0 when all is well."""


class Exported(NamedTuple):
    """What there is to see at the end."""

    samples: dict[str, list[Sample]]
    """Of both scrapes, by the name of the sample."""
    collected: dict[str, Any]
    """What the SDK collected, by the name of the metric."""


class Service:
    """Does to each message what its key says."""

    def __init__(self) -> None:
        self.held = asyncio.Event()

    async def on_message(self, context: Context, message: Message) -> None:
        match message.key:
            case "fails":
                raise ValueError("on purpose")
            case "slow" | "held":
                await self.held.wait()
            case "greedy":
                await asyncio.sleep(0.02)
            case "timer-key":
                await context.schedule(datetime.now(UTC) - timedelta(seconds=1))

    async def on_timer(self, context: Context, timer: Timer) -> None:
        """All is well."""


def samples_of(*texts: str) -> dict[str, list[Sample]]:
    """What Prometheus makes of some scrapes."""
    found: dict[str, list[Sample]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append(sample)
    return found


def collected_by(reader: InMemoryMetricReader) -> dict[str, Any]:
    """What the SDK collects now, by name."""
    data: Any = reader.get_metrics_data()
    if data is None:
        return {}
    return {m.name: m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}


@functools.cache
def everything() -> Exported:
    """Use everything, until everything shows."""
    return asyncio.run(_everything())


async def _everything() -> Exported:
    cluster = MemoryCluster()
    broker = MemoryBroker(cluster, runtime=SystemRuntime(), auto_create_topics=False)
    place = Place(broker, functools.partial(MemoryLook, cluster), mock=False)
    reader = InMemoryMetricReader()
    with mock.patch(PROVIDER, MeterProvider([reader], shutdown_on_exit=False)):
        service = Service()
        try:
            clients = await _clients(place, service)
            await _messages(place, clients[0])
            async with asyncio.timeout(DEADLINE_S):
                return await _until_all_shows(place, clients, reader)
        finally:
            service.held.set()
            await place.close()


async def _clients(place: Place, service: Service) -> list[ProsodyClient]:
    failed = await place.create_topic(f"{place.topic}-failed", partitions=1)
    await place.create_topic(partitions=2)
    shared: dict[str, Any] = {
        "mock": False, "probe_port": 0, "retry_base": 0.01, "telemetry_enabled": True
    }  # fmt: skip
    pipeline = place.client(
        **shared,
        mode="pipeline",
        timeout=0.2,
        defer_base=0.01,
        defer_max_delay=1.0,
        monopolization_threshold=0.0001,
    )
    low_latency = place.client(
        **shared,
        mode="low-latency",
        group_id=f"{place.group}-fast",
        failure_topic=failed,
        max_retries=1,
    )
    for client in (pipeline, low_latency):
        await client.subscribe(service)
    return [pipeline, low_latency]


async def _messages(place: Place, client: ProsodyClient) -> None:
    for key in ("fails", "greedy", "timer-key", "slow"):
        await client.send(place.topic, key, {"n": 1})
    await place.put({"id": "twice"}, key=b"copies")
    await place.put({"id": "twice"}, key=b"copies")
    await place.put({"n": 2}, key=b"greedy")
    await place.put(b"no json", key=b"broken")
    await place.put(None, key=b"tombstone")
    await place.put({"n": 1}, key=b"held")


async def _until_all_shows(
    place: Place, clients: list[ProsodyClient], reader: InMemoryMetricReader
) -> Exported:
    state = place.cluster.attached(MemoryStoreState)
    while True:
        texts = [(await fetch(_port(client), "/metrics")).text for client in clients]
        found = Exported(samples_of(*texts), collected_by(reader))
        missing = _missing(found)
        if not missing:
            return found
        if missing == {"prosody.store.errors"}:
            # The last, because nothing is deferred meanwhile.
            state.outage()
            await place.put({"n": 2}, key=b"fails-too")
            await asyncio.sleep(0.3)
            state.restore()
        await asyncio.sleep(0.1)


def _missing(found: Exported) -> set[str]:
    """The metrics that do not show yet, in one place or the other."""
    missing = set()
    for metric in TABLE:
        ends = {Kind.COUNTER: "_total", Kind.GAUGE: "", Kind.HISTOGRAM: "_count"}
        samples = found.samples.get(name_of(metric) + ends[metric.kind], [])
        points = (
            found.collected[metric.name].data.data_points if metric.name in found.collected else []
        )
        if (
            not samples
            or not points
            or (metric.name not in ZERO and not any(sample.value for sample in samples))
        ):
            missing.add(metric.name)
    return missing


def _port(client: ProsodyClient) -> int:
    consumer = client._consumer
    assert consumer is not None
    assert consumer.probes.port is not None
    return consumer.probes.port
