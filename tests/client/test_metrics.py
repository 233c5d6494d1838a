"""Metrics over the whole way, on both brokers: what is told is what has happened."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import logging
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from prosody import SendError
from prosody.broker.protocol import TopicPartition
from prosody.errors import BrokerError
from tests.client.support import Place, Recorder, eventually
from tests.client.test_probes import ask, probed, until
from tests.observe.everything import PROVIDER, collected_by, samples_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prosody import Context, Message, ProsodyClient

on_memory = pytest.mark.parametrize("place", ["memory"], indirect=True)
TOPIC = "messaging_destination_name"


class Reader:
    """A meter provider of the program's, and what it collects."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch | None = None) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)
        if monkeypatch is not None:
            monkeypatch.setattr(PROVIDER, self.provider)

    def points(self, name: str) -> list[Any]:
        found = collected_by(self.reader).get(name)
        return [] if found is None else list(found.data.data_points)

    def value(self, name: str, **attributes: str) -> float | None:
        """The sum over series with these attributes, of which dots are written as underscores; of a
        histogram how many values it has. None without any."""
        found = [
            getattr(point, "count", None) if hasattr(point, "count") else point.value
            for point in self.points(name)
            if _has({k.replace(".", "_"): v for k, v in point.attributes.items()}, attributes)
        ]
        return sum(found) if found else None


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    return Reader(monkeypatch)


def _has(found: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(found.get(name) == value for name, value in wanted.items())


async def scraped(client: ProsodyClient, name: str, **labels: str) -> float | None:
    """The sum over series with these labels; None without any."""
    reply = await ask(client, "/metrics")
    assert reply.status == 200, reply.text
    found = [
        sample.value
        for sample in samples_of(reply.text).get(name, [])
        if _has(sample.labels, labels)
    ]
    return sum(found) if found else None


class Gate:
    """Lets handlers end when it is opened; a message that says so fails."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, context: Context, message: Message) -> None:
        await self.open.wait()
        if message.payload == {"fails": True} and message.offset == 0:
            raise LookupError("on purpose")


async def test_what_is_told_is_what_has_happened(
    place: Place, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prosody.consume.metering.ENDS_S", 0.2)
    await place.create_topic(partitions=1)
    client = probed(place, max_uncommitted=2, max_concurrency=1)
    gate = Gate()
    recorder = Recorder(gate)
    await client.subscribe(recorder)
    await until(client, "/readyz", 200)
    await client.send(place.topic, "k", {"fails": True})
    for number in range(9):
        await client.send(place.topic, f"k{number}", {"n": number})
    await place.put(b"no json")
    await recorder.until(lambda r: len(r.attempts) == 1)
    partition = {TOPIC: place.topic, "messaging_destination_partition_id": "0"}

    async def all_are_waited_for() -> bool:
        # The partition takes in two at a time: only the broker knows of the others.
        values = [
            await scraped(client, "prosody_partition_lag", **partition),
            reader.value("prosody.partition.lag", **partition),
        ]
        return values == [11, 11]

    await eventually(all_are_waited_for, "lag is measured to the end of the log")
    assert await scraped(client, "prosody_permits_used") == 1
    assert await scraped(client, "prosody_partition_uncommitted", **partition) == 2
    assert await scraped(client, "prosody_partition_waiting", **partition) == 1
    assert await scraped(client, "prosody_partition_in_flight", **partition) == 1
    age_s = await scraped(client, "prosody_partition_oldest_age_seconds", **partition)
    assert age_s is not None
    assert 0.0 < age_s < 60.0
    assert (await scraped(client, "prosody_partition_oldest_age_seconds", **partition) or 0) > age_s

    gate.open.set()
    await place.nothing_left()

    async def all_is_done() -> bool:
        return (
            await scraped(client, "prosody_partition_lag", **partition) == 0
            and reader.value("prosody.partition.lag", **partition) == 0
            and reader.value("messaging.process.duration") == 10
            and reader.value("messaging.client.sent.messages") == 10
        )

    await eventually(all_is_done, "nothing lags")
    handled = "messaging_process_duration_seconds_count"
    assert await scraped(client, handled, error_type="", **{TOPIC: place.topic}) == 9
    assert await scraped(client, handled, error_type="LookupError") == 1
    assert reader.value("messaging.client.consumed.messages", **{TOPIC: place.topic}) == 10
    assert reader.value("messaging.process.duration", error_type="LookupError") == 1
    assert await scraped(client, "messaging_client_consumed_messages_total") == 10
    assert await scraped(client, "prosody_undecodable_total") == 1
    assert await scraped(client, "prosody_skipped_total") == 1
    assert (
        await scraped(client, "prosody_rebalance_partitions_total", prosody_change="assigned") == 1
    )
    commits = {"messaging_operation_name": "commit", "error_type": ""}
    assert await scraped(client, "messaging_client_operation_duration_seconds_count", **commits)
    assert await scraped(client, "prosody_partition_oldest_age_seconds", **partition) is None


async def test_series_of_partitions_end_and_counters_go_on(place: Place, reader: Reader) -> None:
    await place.create_topic(partitions=2)
    client = place.client()
    for round_ in (1, 2):
        recorder = Recorder()
        await client.subscribe(recorder)
        for number in range(5):
            await client.send(place.topic, f"k{number}", {"n": number})
        await recorder.until_handled(5)

        async def two_partitions() -> bool:
            return len(reader.points("prosody.partition.lag")) == 2

        await eventually(two_partitions, "a series for each partition")
        await client.send(place.topic, "k", {"n": 5})
        await recorder.until_handled(6)
        await client.unsubscribe()  # sees to what nobody has looked at since
        assert reader.points("prosody.partition.lag") == []
        assert reader.points("prosody.permits.used") == []
        assert reader.value("messaging.client.consumed.messages") == 6 * round_
        assert reader.value("messaging.process.duration") == 6 * round_
        assert reader.value("messaging.client.sent.messages") == 6 * round_


@on_memory
async def test_a_partition_that_moves_takes_its_series_along(place: Place, reader: Reader) -> None:
    await place.create_topic(partitions=2)
    first, second = place.client(), place.client()
    await first.subscribe(Recorder())
    await second.subscribe(Recorder())

    async def one_each() -> bool:
        counts = [await client.assigned_partition_count() for client in (first, second)]
        return counts == [1, 1] and len(reader.points("prosody.partition.lag")) == 2

    await eventually(one_each, "each has one, and nobody tells of another's")
    assert reader.value("prosody.partitions.assigned") == 2
    assert reader.value("prosody.consumer.ready") == 2  # of both, as they share the series
    await second.unsubscribe()
    assert reader.value("prosody.consumer.ready") == 1


@on_memory
async def test_a_provider_that_comes_late_is_found(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.create_topic(partitions=1)
    client = place.client()
    recorder = Recorder()
    await client.subscribe(recorder)
    assert client._consumer is not None
    scheduler = client._consumer._stack.scheduler
    await place.put({"n": 1})
    await recorder.until_handled(1)
    assert scheduler.note is None  # nobody wants metrics, so nothing is measured
    assert client._metrics.latest == {}
    late = Reader(monkeypatch)

    async def found() -> bool:
        return late.value("messaging.client.consumed.messages") == 1

    await eventually(found, "counts are there from the beginning")
    await place.put({"n": 2})
    await recorder.until_handled(2)

    async def measured() -> bool:
        return late.value("messaging.process.duration") == 1

    await eventually(measured, "and what is measured from now on")
    monkeypatch.setattr(PROVIDER, NoOpMeterProvider())

    async def stopped() -> bool:
        return scheduler.note is None

    await eventually(stopped, "nobody wants metrics any more")


@on_memory
async def test_sends_need_no_subscription(place: Place, reader: Reader) -> None:
    await place.create_topic()
    client = place.client()
    for number in range(3):
        await client.send(place.topic, "k", {"n": number})

    def refuse(name: str, _: str) -> None:
        if name == "send":
            raise BrokerError("refused", retriable=False)

    place.cluster.on_call = refuse
    with pytest.raises(SendError):
        await client.send(place.topic, "k", {"n": 4})
    place.cluster.on_call = None
    name, failed = "messaging.client.operation.duration", "prosody.errors.SendError"

    async def handed_over() -> bool:
        return reader.value(name) == 4

    await eventually(handed_over, "without a subscription, and before the end")
    assert reader.value(name, messaging_operation_name="send", error_type=failed) == 1
    assert reader.value("messaging.client.sent.messages", error_type=failed) == 1
    assert reader.value("messaging.client.sent.messages") == 4
    await client.send(place.topic, "k", {"n": 5})
    await client.shutdown()
    assert reader.value(name) == 5  # at once
    del client
    place._clients.clear()
    gc.collect()
    other = place.client()
    await other.send(place.topic, "k", {"n": 6})
    assert (
        reader.value("messaging.client.sent.messages") == 6
    )  # of the program, so nothing is forgotten


@on_memory
async def test_a_provider_that_cannot_be_used_is_told_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(PROVIDER, None)
    monkeypatch.setenv("OTEL_PYTHON_METER_PROVIDER", "no_such_thing")
    caplog.set_level(logging.ERROR, "prosody.metrics")
    await place.create_topic()
    client = place.client()
    recorder = Recorder()
    await client.subscribe(recorder)
    await client.send(place.topic, "k", 1)
    await recorder.until_handled(1)
    await client.unsubscribe()
    lines = [r.getMessage() for r in caplog.records if r.name == "prosody.metrics"]
    assert lines == ["no metrics are exported: the meter provider cannot be used"]


@on_memory
async def test_without_the_extra_nothing_is_measured_and_the_page_says_why(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "prometheus_client" else find(n, *a)
    )
    await place.create_topic()
    client = probed(place)
    await client.subscribe(Recorder())
    reply = await ask(client, "/metrics")
    assert (reply.status, "prosody-asyncio[prometheus]" in reply.text) == (404, True)
    assert client._consumer is not None
    assert client._consumer._stack.scheduler.note is None


@on_memory
async def test_ends_that_cannot_be_had_harm_nobody(place: Place) -> None:
    await place.create_topic(partitions=1)
    asked = asyncio.Event()

    def refuse(name: str, _: str) -> None:
        if name == "end_offsets":
            asked.set()
            raise BrokerError("not now", retriable=True)

    place.cluster.on_call = refuse
    client = probed(place)
    recorder = Recorder()
    await client.subscribe(recorder)
    async with asyncio.timeout(20.0):
        await asked.wait()
    await client.send(place.topic, "k", 1)
    await recorder.until_handled(1)

    async def lag_is_what_is_known() -> bool:
        return await scraped(client, "prosody_partition_lag") == 0

    await eventually(lag_is_what_is_known, "lag, as far as this client knows")
    assert TopicPartition(place.topic, 0) not in client._consumer._metering._ends  # type: ignore[union-attr]


@on_memory
async def test_a_loop_that_stands_still_shows(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    await place.create_topic(partitions=1)
    loop = asyncio.get_running_loop()
    client = probed(place)
    entered: list[float] = []

    async def block(context: Context, message: Message) -> None:
        entered.append(loop.time())
        while loop.time() < entered[-1] + 1.7:
            pass

    recorder = Recorder(block)
    await client.subscribe(recorder)
    await client.send(place.topic, "k", 1)
    await recorder.until_handled(1)
    name = "prosody_loop_lag_seconds"

    async def a_long_one() -> bool:
        total = await scraped(client, f"{name}_count")
        quick = await scraped(client, f"{name}_bucket", le="1.0")
        return total is not None and quick is not None and total > quick

    await eventually(a_long_one, "a look that was more than a second late")
    lines = [r.getMessage() for r in caplog.records if r.name == "prosody.watch"]
    assert any("blocked the event loop for 1." in line or "for 2." in line for line in lines), lines
