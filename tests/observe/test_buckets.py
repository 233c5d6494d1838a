"""Histograms of our own."""

from __future__ import annotations

import random
from bisect import bisect_left
from types import SimpleNamespace
from typing import Any

import pytest

from prosody.model.message import Timer
from prosody.model.outcome import SUCCESS, Kind, Outcome
from prosody.model.times import utc_from_seconds
from prosody.observe.buckets import OTHER, SERIES_MAX, Buckets, Histogram
from prosody.observe.handling import Handling
from prosody.observe.metric_table import BOUNDS_S


def test_a_bound_belongs_to_its_bucket() -> None:
    buckets = Buckets()
    for bound in BOUNDS_S:
        buckets.add(bound)
    assert buckets.counts == [1] * len(BOUNDS_S) + [0]
    buckets.add(BOUNDS_S[-1] + 0.001)
    assert buckets.counts[-1] == 1


def test_parts_that_are_taken_add_up() -> None:
    chance = random.Random(7)
    buckets = Buckets()
    seen: list[float] = []
    counts, total = [0] * (len(BOUNDS_S) + 1), 0.0
    for _ in range(50):
        part = [chance.expovariate(1.0) for _ in range(chance.randrange(4))]
        for value in part:
            buckets.add(value)
        seen += part
        taken = buckets.taken()
        counts = [a + b for a, b in zip(counts, taken.counts, strict=True)]
        total += taken.total
        if part:
            assert (taken.low, taken.high) == (min(part), max(part))
        else:
            assert not any(taken.counts)
    wanted = [0] * len(counts)
    for value in seen:
        wanted[bisect_left(BOUNDS_S, value)] += 1
    assert counts == wanted == buckets.counts
    assert total == pytest.approx(sum(seen))


def test_series_without_end_become_one() -> None:
    histogram = Histogram()
    for number in range(SERIES_MAX + 5):
        histogram.add(("kafka", str(number)), 1.0)
    assert len(histogram.series) == SERIES_MAX + 1
    assert histogram.counts()[OTHER, OTHER] == 5
    histogram.add(("kafka", "0"), 1.0)
    assert histogram.counts()["kafka", "0"] == 2


def run_of(event: Any) -> Any:
    place = SimpleNamespace(topic="orders", partition=0)
    return SimpleNamespace(event=event, partition=SimpleNamespace(topic_partition=place))


def test_attempts_are_noted_by_what_was_called_and_how_it_ended() -> None:
    histogram = Histogram()
    note = Handling(histogram, "group")
    timer = Timer("k", utc_from_seconds(1))
    for _ in range(2):
        note(run_of("message"), 0.1, SUCCESS)
        note(run_of(timer), 0.1, SUCCESS)
    note(run_of(timer), 0.1, Outcome(Kind.TRANSIENT, ValueError()))
    note(run_of("message"), 0.1, Outcome(Kind.PERMANENT, TimeoutError()))
    note(run_of(None), 0.1, Outcome(Kind.PERMANENT, ValueError()))  # cannot be decoded
    note(run_of("message"), 0.1, None)  # cut short by the end of the loop
    assert histogram.counts() == {
        ("kafka", "process", "orders", "group", ""): 2,
        ("kafka", "timer", "orders", "group", ""): 2,
        ("kafka", "timer", "orders", "group", "ValueError"): 1,
        ("kafka", "process", "orders", "group", "TimeoutError"): 1,
    }
