"""The table of metrics: against the conventions, the README, and what everything in use exports."""

from __future__ import annotations

import re

import opentelemetry.semconv._incubating.metrics.messaging_metrics as conventions
import pytest
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.semconv.attributes import error_attributes

from prosody.observe.metric_table import TABLE, Kind, Metric
from prosody.observe.prometheus import name_of, sanitized
from tests.observe.everything import everything
from tests.readme.document import section

KEYS = {
    "fails",
    "fails-too",
    "greedy",
    "timer-key",
    "slow",
    "copies",
    "broken",
    "tombstone",
    "held",
}
"""Those of the messages that are handled when everything is in use."""
ENDS = {Kind.COUNTER: ["_total"], Kind.GAUGE: [""], Kind.HISTOGRAM: ["_bucket", "_count", "_sum"]}


def test_names_and_attributes_are_those_of_the_conventions() -> None:
    names = {value for name, value in vars(conventions).items() if name.isupper()}
    attributes = {
        value
        for module in (messaging_attributes, error_attributes)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }
    assert {m.name for m in TABLE if m.name.startswith("messaging.")} == {
        "messaging.process.duration",
        "messaging.client.operation.duration",
        "messaging.client.consumed.messages",
        "messaging.client.sent.messages",
    }
    for metric in TABLE:
        assert metric.name in names or metric.name.startswith("prosody.")
        for attribute in metric.attributes:
            assert attribute in attributes or attribute.startswith("prosody.")
            assert "key" not in attribute


def test_names_are_sorted_out() -> None:
    assert len({metric.name for metric in TABLE}) == len(TABLE)
    for metric in TABLE:
        assert re.fullmatch(r"[a-z][a-z_.]*[a-z]", metric.name)
        assert re.fullmatch(r"s|1|\{[a-z]+\}", metric.unit)
        assert metric.kind is not Kind.HISTOGRAM or metric.unit == "s"


def test_the_readme_has_them_all() -> None:
    rows = [line for line in section("All metrics").text.splitlines() if line.startswith("| `")]
    assert rows == [row(metric) for metric in TABLE]


def row(metric: Metric) -> str:
    attributes = ", ".join(f"`{attribute}`" for attribute in metric.attributes)
    kind = metric.kind.value
    return f"| `{metric.name}` | {kind} | `{metric.unit}` | {attributes} | {metric.meaning} |"


@pytest.mark.parametrize("metric", TABLE, ids=lambda metric: metric.name)
def test_what_is_exported_is_what_the_table_says(metric: Metric) -> None:
    samples, collected = everything()
    labels = {sanitized(attribute) for attribute in metric.attributes}
    for end in ENDS[metric.kind]:
        for sample in samples[name_of(metric) + end]:
            assert sample.labels.keys() - {"le"} == labels
    found = collected[metric.name]
    assert (found.unit, found.description) == (metric.unit, metric.meaning)
    for point in found.data.data_points:
        assert point.attributes.keys() <= set(metric.attributes)
        assert all(point.attributes.values())


def test_nothing_else_is_exported_and_no_key_is_in_it() -> None:
    samples, collected = everything()
    assert collected.keys() == {metric.name for metric in TABLE}
    assert samples.keys() == {
        name_of(metric) + end for metric in TABLE for end in ENDS[metric.kind]
    }
    values = {v for many in samples.values() for sample in many for v in sample.labels.values()}
    assert not values & KEYS


@pytest.mark.parametrize("metric", TABLE, ids=lambda metric: metric.name)
def test_both_ways_have_the_same_series(metric: Metric) -> None:
    """The two are taken one after the other, so the values may differ, and what has just come or gone."""
    samples, collected = everything()
    end = {Kind.HISTOGRAM: "_count"}.get(metric.kind, ENDS[metric.kind][0])
    scraped = {
        frozenset((k, v) for k, v in sample.labels.items() if v)
        for sample in samples[name_of(metric) + end]
    }
    exported = {
        frozenset((sanitized(k), v) for k, v in point.attributes.items())
        for point in collected[metric.name].data.data_points
    }
    assert scraped & exported
