"""The metrics as instruments of a meter of OpenTelemetry: one set for each provider, for all clients.

Counters and gauges are observable: a callback reads what the clients have published, in the thread of the
exporter, when it collects. So they cost a message nothing, and a loop that stands still does not hold the
exporter up. Histograms are handed over as wholes where that is possible (``sdk_histograms``).
"""

from __future__ import annotations

import logging
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING

from opentelemetry.metrics import Observation

from prosody.observe.metric_table import BOUNDS_S, TABLE, Kind
from prosody.observe.sdk_histograms import can_merge, merge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider

    from prosody.observe.buckets import Histogram as Own
    from prosody.observe.buckets import Series
    from prosody.observe.metric_table import Metric
    from prosody.observe.metrics import Metrics

_log = logging.getLogger("prosody.metrics")

_SETS: weakref.WeakKeyDictionary[MeterProvider, Instruments] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()
_HISTOGRAMS = tuple(metric for metric in TABLE if metric.kind is Kind.HISTOGRAM)
_COUNTERS = tuple(metric for metric in TABLE if metric.kind is Kind.COUNTER)


def instruments_of(provider: MeterProvider, meter: Meter) -> Instruments:
    """Those of a provider: a second client of the process must not make the same again."""
    with _LOCK:
        found = _SETS.get(provider)
        if found is None:
            found = _SETS[provider] = Instruments(meter)
        return found


class Instruments:
    """All metrics of the table, for the clients that use one provider."""

    def __init__(self, meter: Meter) -> None:
        self._clients: weakref.WeakSet[Metrics] = weakref.WeakSet()
        self._ended: dict[str, dict[Series, float]] = {}
        """The counters of clients that were shut down: what a process exports must never shrink."""
        self._attributes: dict[tuple[str, Series], dict[str, str]] = {}
        self._histograms: dict[str, Histogram] = {}
        for metric in TABLE:
            observe = partial(self._observe, metric)
            match metric.kind:
                case Kind.COUNTER:
                    meter.create_observable_counter(
                        metric.name, [observe], metric.unit, metric.meaning
                    )
                case Kind.GAUGE:
                    meter.create_observable_gauge(
                        metric.name, [observe], metric.unit, metric.meaning
                    )
                case Kind.HISTOGRAM:
                    self._histograms[metric.name] = meter.create_histogram(
                        metric.name,
                        metric.unit,
                        metric.meaning,
                        explicit_bucket_boundaries_advisory=BOUNDS_S,
                    )

    def add(self, client: Metrics) -> None:
        """Export what ``client`` measures from now on."""
        with _LOCK:
            self._clients.add(client)
        merging = can_merge(self._histograms.values())
        for metric in _HISTOGRAMS:
            histogram = client.histograms[metric.name]
            histogram.each = None if merging else self._recording(metric, histogram)
            for buckets in histogram.series.values():
                buckets.taken()  # what came before this client had a provider
        client.export = self.hand_over if merging else None
        if not merging:
            _log.info(
                "the meter provider takes durations only one by one, which costs each message some "
                "10 us: it is another one than the SDK of now, or a view wants other buckets"
            )

    def drop(self, client: Metrics) -> None:
        """Another provider has taken over ``client``."""
        with _LOCK:
            self._clients.discard(client)
        for metric in _HISTOGRAMS:
            client.histograms[metric.name].each = None

    def retire(self, client: Metrics) -> None:
        """``client`` was shut down."""
        with _LOCK:
            if client not in self._clients:
                return
            self._clients.discard(client)
            for metric in _COUNTERS:
                ended = self._ended.setdefault(metric.name, {})
                for series, value in client.numbers_of(metric).items():
                    ended[series] = ended.get(series, 0) + value

    def hand_over(self, client: Metrics) -> None:
        """Add what came since the last time to the instruments; in the event loop."""
        for metric in _HISTOGRAMS:
            for series, buckets in client.histograms[metric.name].series.items():
                values = buckets.taken()
                if any(values.counts):
                    attributes = self._attributes_of(metric, series)
                    merge(self._histograms[metric.name], attributes, values)

    def _recording(self, metric: Metric, own: Own) -> Callable[[Series, float], None]:
        record = self._histograms[metric.name].record
        attributes_of = self._attributes_of

        def each(series: Series, value: float) -> None:
            try:
                record(value, attributes_of(metric, series))
            except Exception:  # noqa: BLE001
                # Of the provider's, and no reason for a message to fail, or to be told of each time.
                own.each = None
                _log.exception("%s is not exported: the meter provider failed", metric.name)

        return each

    def _observe(self, metric: Metric, _: CallbackOptions) -> Iterable[Observation]:
        """What all clients have of a metric. Those of one group that hold the same are added up."""
        with _LOCK:
            clients = tuple(self._clients)
            found = dict(self._ended.get(metric.name, {}))
        for client in clients:
            for series, value in client.numbers_of(metric).items():
                before = found.get(series, 0)
                found[series] = max(before, value) if metric.is_age else before + value
        return [
            Observation(value, self._attributes_of(metric, series))
            for series, value in found.items()
        ]

    def _attributes_of(self, metric: Metric, series: Series) -> dict[str, str]:
        """Made once for each series; of partitions that come and go there are not many."""
        found = self._attributes.get((metric.name, series))
        if found is None:
            pairs = zip(metric.attributes, series, strict=True)
            found = {name: value for name, value in pairs if value}
            self._attributes[metric.name, series] = found
        return found
