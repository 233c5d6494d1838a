"""``/metrics``: what a client measures, in the text formats of Prometheus and OpenMetrics.

Made with prometheus_client alone, from the numbers that are there already. OpenTelemetry's exporter for
Prometheus would need the SDK, is a beta, registers itself for the whole process, and would have each
message go through the SDK's ``record``. Names and labels are those that OpenTelemetry's own translation
makes, so a dashboard serves both ways.
"""

from __future__ import annotations

import asyncio
import re
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

from prosody.observe.answer import Answer
from prosody.observe.metric_table import BOUNDS_S, TABLE, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric as Family

    from prosody.observe.answer import Request
    from prosody.observe.metric_table import Metric
    from prosody.observe.metrics import Metrics

_UNITS: Final = {"s": "_seconds", "1": "_ratio"}
_BOUNDS = (*map(str, BOUNDS_S), "+Inf")


def name_of(metric: Metric) -> str:
    """Its name for Prometheus, without what its type adds (``_total``, ``_bucket`` and so on)."""
    return sanitized(metric.name) + _UNITS.get(metric.unit, "")


def sanitized(name: str) -> str:
    """A name with what Prometheus allows in one."""
    return re.sub(r"\W", "_", name)


def page(metrics: Metrics, request: Request) -> asyncio.Future[Answer]:
    """All metrics, those of the consumer as of now; to be called in its event loop.

    The text is made in a thread, because that takes some 0.1 ms for each partition.
    """
    metrics.read()
    loop = asyncio.get_running_loop()
    return loop.run_in_executor(None, text, metrics, request.accept)


def text(metrics: Metrics, accept: str) -> Answer:
    """All metrics as they were read last, in the format that ``accept`` asks for."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(metrics))
    encode, content_type = choose_encoder(accept)
    return Answer(200, encode(registry), content_type)


class _Collector:
    """Makes the families when it is asked for them, and keeps nothing."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> tuple[()]:
        return ()

    def collect(self) -> Iterator[Family]:
        for metric in TABLE:
            yield self._family(metric)

    def _family(self, metric: Metric) -> Family:
        name, labels = name_of(metric), [sanitized(name) for name in metric.attributes]
        if metric.kind is Kind.HISTOGRAM:
            histogram = HistogramMetricFamily(name, metric.meaning, labels=labels)
            for series, values in tuple(self._metrics.histograms[metric.name].series.items()):
                counts = map(float, accumulate(values.counts))
                pairs = list(zip(_BOUNDS, counts, strict=True))
                histogram.add_metric(series, pairs, values.total)
            return histogram
        make = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
        family = make(name, metric.meaning, labels=labels)
        for series, value in self._metrics.numbers_of(metric).items():
            family.add_metric(series, value)
        return family
