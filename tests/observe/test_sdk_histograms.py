"""Whole histograms in the SDK: the same as value by value, or else value by value."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.metrics import MeterProvider as ApiProvider
from opentelemetry.metrics import NoOpMeter, NoOpMeterProvider
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import (
    DropAggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    View,
)

from prosody.observe import sdk_histograms
from prosody.observe.metric_table import BOUNDS_S, OPERATION_DURATION, PROCESS_DURATION
from prosody.observe.metrics import Metrics
from prosody.runtime import SystemRuntime
from tests.observe.everything import PROVIDER, collected_by

if TYPE_CHECKING:
    from collections.abc import Iterator

SERIES = ("kafka", "process", "orders", "group", "")
OTHER = ("kafka", "process", "orders", "group", "ValueError")
VALUES = (0.005, 0.0051, 0.3, 12.0, 0.0)


@pytest.fixture(autouse=True)
def _tried_anew() -> Iterator[None]:
    sdk_histograms.works.cache_clear()
    yield
    sdk_histograms.works.cache_clear()


def client_of(provider: Any, monkeypatch: pytest.MonkeyPatch) -> Metrics:
    monkeypatch.setattr(PROVIDER, provider)
    metrics = Metrics(SystemRuntime(), "group")
    metrics.look()
    return metrics


def points(reader: InMemoryMetricReader) -> list[Any]:
    found = collected_by(reader).get(PROCESS_DURATION.name)
    return [] if found is None else list(found.data.data_points)


def told(reader: InMemoryMetricReader) -> list[tuple[Any, ...]]:
    return [
        (dict(p.attributes), p.count, list(p.bucket_counts), p.min, p.max, pytest.approx(p.sum))
        for p in points(reader)
    ]


@pytest.mark.parametrize("temporality", list(AggregationTemporality)[1:])
@pytest.mark.parametrize("keys", [None, {"messaging.destination.name"}])
def test_it_is_the_same_as_value_by_value(
    temporality: AggregationTemporality, keys: set[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {Histogram: temporality, Counter: temporality}
    views = [View(instrument_name="*", attribute_keys=keys)] if keys else []
    readers = [InMemoryMetricReader(preferred_temporality=wanted) for _ in range(2)]
    whole, single = (
        MeterProvider([reader], shutdown_on_exit=False, views=views) for reader in readers
    )
    by_whole = client_of(whole, monkeypatch)
    assert by_whole.export is not None
    monkeypatch.setattr(sdk_histograms, "_try_it", lambda: False)
    sdk_histograms.works.cache_clear()
    one_by_one = client_of(single, monkeypatch)
    assert one_by_one.export is None
    for part in (VALUES, (), (0.2,), (0.4, 3.0)):
        for client in (by_whole, one_by_one):
            for value in part:
                client.handled.add(SERIES, value)
            if len(part) == 1:
                client.handled.add(OTHER, part[0])
            client.hand_over()
        assert told(readers[0]) == told(readers[1])
    assert (
        temporality is AggregationTemporality.DELTA or sum(p.count for p in points(readers[0])) == 9
    )


@pytest.mark.parametrize(
    "aggregation",
    [
        ExplicitBucketHistogramAggregation(boundaries=[0.1, 1.0]),
        ExponentialBucketHistogramAggregation(),
    ],
)
def test_other_buckets_get_each_value(aggregation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    views = [View(instrument_name=PROCESS_DURATION.name, aggregation=aggregation)]
    provider = MeterProvider([reader], shutdown_on_exit=False, views=views)
    client = client_of(provider, monkeypatch)
    for value in VALUES:
        client.handled.add(SERIES, value)
    (point,) = points(reader)
    assert (point.count, point.max) == (5, 12.0)
    client.hand_over()  # nothing is left to be handed over
    (point,) = points(reader)
    assert point.count == 5


def test_a_view_may_drop_them(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    views = [View(instrument_name=PROCESS_DURATION.name, aggregation=DropAggregation())]
    client = client_of(MeterProvider([reader], shutdown_on_exit=False, views=views), monkeypatch)
    assert client.export is not None
    client.handled.add(SERIES, 0.1)
    client.hand_over()
    assert points(reader) == []


def test_what_came_before_the_provider_is_not_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    client = Metrics(SystemRuntime(), "group", scraped=True)
    client.handled.add(SERIES, 7.0)
    monkeypatch.setattr(PROVIDER, MeterProvider([reader], shutdown_on_exit=False))
    client.look()
    client.handled.add(SERIES, 0.3)
    client.hand_over()
    (point,) = points(reader)
    assert (point.count, point.sum, point.max) == (1, pytest.approx(0.3), 0.3)


@pytest.mark.parametrize(
    "broken",
    [
        lambda aggregation, values: None,
        lambda aggregation, values: setattr(aggregation, "_value", values.counts),
        lambda aggregation, values: aggregation.no_such_thing,
    ],
)
def test_an_sdk_that_does_otherwise_is_found_out(
    broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sdk_histograms.works()
    sdk_histograms.works.cache_clear()
    monkeypatch.setattr(sdk_histograms, "_add", broken)
    assert not sdk_histograms.works()
    reader = InMemoryMetricReader()
    client = client_of(MeterProvider([reader], shutdown_on_exit=False), monkeypatch)
    client.handled.add(SERIES, 0.3)
    (point,) = points(reader)
    assert (point.count, point.explicit_bounds) == (1, BOUNDS_S)


class Foreign(ApiProvider):
    """Another implementation of the API, which is given each value."""

    def __init__(self) -> None:
        self.recorded: list[tuple[float, Any]] = []
        self.broken = False

    def get_meter(self, name: str, *_: Any, **__: Any) -> Any:
        provider = self

        class Recorder(NoOpMeter):
            def create_histogram(self, name: str, *_: Any, **__: Any) -> Any:
                class Recording:
                    def record(self, value: float, attributes: Any) -> None:
                        if provider.broken:
                            raise ZeroDivisionError("a bug")
                        provider.recorded.append((value, attributes))

                return Recording()

        return Recorder(name)


def test_another_implementation_gets_each_value(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = Foreign()
    client = client_of(foreign, monkeypatch)
    client.handled.add(OTHER, 0.3)
    attributes = {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.destination.name": "orders",
        "messaging.consumer.group.name": "group",
        "error.type": "ValueError",
    }
    assert foreign.recorded == [(0.3, attributes)]
    # Another provider takes over; nothing goes to the one before any more.
    reader = InMemoryMetricReader()
    monkeypatch.setattr(PROVIDER, MeterProvider([reader], shutdown_on_exit=False))
    client.look()
    client.handled.add(OTHER, 0.4)
    client.hand_over()
    assert len(foreign.recorded) == 1
    assert [point.count for point in points(reader)] == [1]
    monkeypatch.setattr(PROVIDER, NoOpMeterProvider())
    client.look()
    assert not client.on
    client.handled.add(OTHER, 0.4)
    client.hand_over()
    assert [point.count for point in points(reader)] == [1]


def test_a_provider_that_fails_harms_no_message(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = Foreign()
    client = client_of(foreign, monkeypatch)
    foreign.broken = True
    for _ in range(3):
        client.handled.add(SERIES, 0.3)
    assert client.handled.counts() == {SERIES: 3}
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == [
        "messaging.process.duration is not exported: the meter provider failed"
    ]
    monkeypatch.setattr("prosody.observe.instruments.merge", lambda *_: 1 / 0)
    client = client_of(MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False), monkeypatch)
    assert client.export is not None
    client.handled.add(SERIES, 0.3)
    client.hand_over()
    assert client.handled.counts() == {SERIES: 1}


def test_sends_of_several_loops_are_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    client = client_of(MeterProvider([reader], shutdown_on_exit=False), monkeypatch)

    async def sent() -> Any:
        return None

    async def send(*, wait: bool) -> None:
        await client.sending("orders", sent())
        async with asyncio.timeout(30.0):
            while wait and client._due is not None:  # noqa: ASYNC110  # nobody announces it
                await asyncio.sleep(0.01)

    asyncio.run(send(wait=False))  # its loop is closed before the time has come
    monkeypatch.setattr("prosody.observe.metrics.HAND_OVER_S", 0.01)
    asyncio.run(send(wait=True))
    (point,) = collected_by(reader)[OPERATION_DURATION.name].data.data_points
    assert point.count == 2
