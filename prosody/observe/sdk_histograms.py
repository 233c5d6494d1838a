"""Hands whole histograms over to those of the OpenTelemetry SDK.

The API takes histograms value by value, at 7 to 15 us each, which is more than all else that is done for a
message. The SDK keeps the very same counts that are here already, so they are added to its own, as
``record`` would have done one by one. That needs what is private in the SDK. So before it is done, it is
tried with a provider of our own: unless the outcome is what ``record`` makes, each value goes through
``record``. The same with other implementations of the API, and where a view asks for other buckets.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from prosody.observe.buckets import Buckets
from prosody.observe.metric_table import BOUNDS_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry.metrics import Histogram

    from prosody.observe.buckets import Values

_log = logging.getLogger("prosody.metrics")


def can_merge(instruments: Iterable[Histogram]) -> bool:
    """Whether values may be added to all of these at once."""
    try:
        return works() and all(
            _fits(match) for instrument in instruments for match in _matches(instrument)
        )
    except Exception:  # noqa: BLE001
        return False  # it is another implementation than the SDK that was tried


def merge(instrument: Any, attributes: Mapping[str, str], values: Values) -> None:
    """Add values to an instrument that ``can_merge`` has said yes to."""
    for match in _matches(instrument):
        if _drops(match):
            continue
        if not _fits(match):
            # Of a reader that came later, and wants other buckets than all before.
            _log.warning("a metric reader gets no %s: it wants other buckets", instrument.name)
            continue
        keys = match._view._attribute_keys
        kept = {k: v for k, v in attributes.items() if keys is None or k in keys}
        with match._lock:
            aggregation = match._get_or_create_aggregation(_hashed(kept), kept)
            with aggregation._lock:
                _add(aggregation, values)


def _add(aggregation: Any, values: Values) -> None:
    """What the SDK's ``aggregate`` does, for many values."""
    if aggregation._value is None:
        aggregation._value = aggregation._get_empty_bucket_counts()
    for index, count in enumerate(values.counts):
        aggregation._value[index] += count
    aggregation._sum += values.total
    if aggregation._record_min_max:
        aggregation._min = min(aggregation._min, values.low)
        aggregation._max = max(aggregation._max, values.high)


def _matches(instrument: Any) -> list[Any]:
    """What the SDK keeps of an instrument: for each reader, one for each view."""
    storages = tuple(instrument._measurement_consumer._reader_storages.values())
    return [
        match
        for storage in storages
        for match in storage._get_or_init_view_instrument_match(instrument)
    ]


def _fits(match: Any) -> bool:
    from opentelemetry.sdk.metrics._internal.aggregation import _ExplicitBucketHistogramAggregation

    if _drops(match):
        return True
    kept = match._aggregation
    return type(kept) is _ExplicitBucketHistogramAggregation and kept._boundaries == BOUNDS_S


def _drops(match: Any) -> bool:
    """Whether a view wants nothing of it."""
    from opentelemetry.sdk.metrics._internal.aggregation import _DropAggregation

    return type(match._aggregation) is _DropAggregation


def _hashed(attributes: Mapping[str, str]) -> Any:
    from opentelemetry.sdk.metrics._internal._view_instrument_match import _hash_attributes

    return _hash_attributes(attributes)


@functools.cache
def works() -> bool:
    """Whether the SDK that is installed ends up with the same as after ``record``, time after time."""
    try:
        return _try_it()
    except Exception:  # noqa: BLE001
        _log.debug("histograms are recorded value by value", exc_info=True)
        return False  # not installed, or not as it was


def _try_it() -> bool:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.resources import Resource

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], Resource.get_empty(), shutdown_on_exit=False)
    try:
        meter = provider.get_meter("prosody")
        merged, recorded = (
            meter.create_histogram(name, explicit_bucket_boundaries_advisory=BOUNDS_S)
            for name in ("merged", "recorded")
        )
        attributes = {"key": "value"}
        for part in ((0.001, 0.3, 0.005), (20.0, 0.002)):
            own = Buckets()
            for value in part:
                recorded.record(value, attributes)
                own.add(value)
            merge(merged, attributes, own.taken())
            if not _alike(reader.get_metrics_data()):
                return False
    finally:
        provider.shutdown()
    return True


def _alike(collected: Any) -> bool:
    found = {
        metric.name: [
            (
                p.attributes,
                p.count,
                p.bucket_counts,
                p.explicit_bounds,
                p.min,
                p.max,
                round(p.sum, 9),
            )
            for p in metric.data.data_points
        ]
        for metric in collected.resource_metrics[0].scope_metrics[0].metrics
    }
    return len(found["recorded"]) == 1 and found["merged"] == found["recorded"]
