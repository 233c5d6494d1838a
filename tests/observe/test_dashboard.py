"""The dashboard of docs/ against what is really exported when everything is in use."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from prosody.observe.metric_table import TABLE
from prosody.observe.prometheus import name_of
from tests.observe.everything import everything
from tests.observe.promql import parse

DASHBOARD: Any = json.loads(
    (Path(__file__).parents[2] / "docs" / "grafana-dashboard.json").read_text(encoding="utf-8")
)
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ROWS = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
CUMULATIVE = ("_total", "_count", "_bucket", "_sum")
VARIABLES = [v for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]


def exprs(panel: Any) -> list[tuple[str, str]]:
    """Each query of a panel, and its legend."""
    return [(target["expr"], target["legendFormat"]) for target in panel["targets"]]


def faults(expr: str, legend: str = "") -> list[str]:
    """What is wrong with a query, given what is exported."""
    exported = everything().samples
    parsed = parse(expr)
    found = []
    labels: set[str] = set()
    for selector in parsed.selectors:
        samples = exported.get(selector.name)
        if not samples:
            found.append(f"nothing exports {selector.name}")
            continue
        known = {label for sample in samples for label in sample.labels}
        labels |= known
        found += [
            f"{selector.name} has no label {each}" for each in selector.matchers.keys() - known
        ]
        for label, (operator, text) in selector.matchers.items():
            values = {sample.labels.get(label) for sample in samples}
            if operator == "=" and text not in values:
                found.append(
                    f"{selector.name} has no {label} {text!r}, but {sorted(map(str, values))}"
                )
        counts = selector.name.endswith(CUMULATIVE)
        if counts != selector.ranged or counts != bool({"rate", "increase"} & set(selector.inside)):
            found.append(f"{selector.name} with or without a rate")
        if "histogram_quantile" in selector.inside and not any("le" in g for g in parsed.groupings):
            found.append("a quantile without le")
    for grouping in parsed.groupings:
        found += [f"nothing has a label {each}" for each in grouping - labels]
    kept = set.union(*parsed.groupings) if parsed.groupings else labels
    found += [
        f"the legend names {each}" for each in set(re.findall(r"\{\{(\w+)\}\}", legend)) - kept
    ]
    return found


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_each_query_finds_something(panel: Any) -> None:
    assert panel["targets"]
    for expr, legend in exprs(panel):
        assert faults(expr, legend) == []


def test_the_variables_find_something() -> None:
    exported = everything().samples
    for variable in VARIABLES:
        match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert match is not None, variable["query"]
        (selector,) = parse(match[1]).selectors
        assert any(match[2] in sample.labels for sample in exported[selector.name])
        assert variable["definition"] == variable["query"]["query"]


def test_every_metric_is_shown() -> None:
    shown = {s.name for panel in PANELS for expr, _ in exprs(panel) for s in parse(expr).selectors}
    stems = {re.sub(r"_(total|count|bucket|sum)$", "", name) for name in shown}
    assert stems == {name_of(metric) for metric in TABLE}


def test_rows_are_those_one_looks_for() -> None:
    assert ROWS == [
        "Health", "Lag", "Handlers", "Scheduling", "Retries and deferral", "Timers", "Stores",
        "Event loop",
    ]  # fmt: skip


def test_panels_have_ids_and_places_of_their_own() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


@pytest.mark.parametrize(
    ("expr", "fault"),
    [
        ("sum(prosody_permits_hold)", "nothing exports"),
        ('sum by (prosody_permits) (prosody_permits_used{topic="a"})', "no label topic"),
        ("sum by (topic) (prosody_permits_used)", "nothing has a label topic"),
        ("sum(prosody_retries_total)", "without a rate"),
        ("rate(prosody_permits_used[5m])", "with or without a rate"),
        (
            'rate(prosody_store_errors_total{prosody_store="timer"}[5m])',
            "has no prosody_store 'timer'",
        ),
        ("histogram_quantile(0.9, sum(rate(prosody_loop_lag_seconds_bucket[5m])))", "without le"),
    ],
)
def test_the_check_sees(expr: str, fault: str) -> None:
    assert any(fault in found for found in faults(expr))


@pytest.mark.parametrize(
    "expr", ["sum(", "sum(a))", "frobnicate(a)", "a{b=c}", "1 + 2", "sum by a (b)", "§"]
)
def test_what_is_no_promql_is_refused(expr: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(expr)
