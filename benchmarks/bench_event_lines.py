"""Telemetry events as lines of JSON, both halves, with an encoder's own parts.

A benchmark takes 1,000 entries, so milliseconds shown are microseconds for one entry; most have two events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from prosody._core import event_lines_c, event_lines_py
from prosody.broker.protocol import TopicPartition
from prosody.telemetry.encoder import Encoder
from prosody.telemetry.events import DEMANDS, MESSAGE, MESSAGE_FAILED, MESSAGE_SENT, SENT, failure

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

ENTRIES = 1_000
NOW_MS = 1_700_000_000_000.0
PLACES = [TopicPartition("orders", number) for number in range(4)]

both_halves = pytest.mark.parametrize(
    "event_lines",
    [event_lines_c.event_lines, event_lines_py.event_lines],
    ids=["cython", "python"],
)


def encoder() -> Encoder:
    return Encoder("telemetry", "group", "source", "host")


def pairs(keys: list[str], step_s: float) -> list[Any]:
    """Attempts that ended well, one every ``step_s`` seconds."""
    return [
        value
        for n, key in enumerate(keys)
        for value in (
            *(DEMANDS[0], n * step_s, MESSAGE, PLACES[n % 4], 100_000 + n, key),
            n * step_s + 0.002,
        )
    ]


@both_halves
def test_attempt_that_ended_well(benchmark: BenchmarkFixture, event_lines: Any) -> None:
    """One every 10 us, of 250 keys: what a busy client reports."""
    parts = encoder()
    values = pairs([f"key-{n % 250}" for n in range(ENTRIES)], 1e-5)
    _, lines = benchmark(event_lines, parts, values, NOW_MS)
    assert len(lines) == 2 * ENTRIES


@both_halves
def test_attempt_with_a_new_key(benchmark: BenchmarkFixture, event_lines: Any) -> None:
    """No key comes a second time."""
    parts = encoder()
    values = pairs([f"key-{n}" for n in range(ENTRIES)], 1e-5)

    def run() -> Any:
        parts.keys.clear()
        return event_lines(parts, values, NOW_MS)

    keys, _ = benchmark(run)
    assert len({*keys}) == ENTRIES


@both_halves
def test_attempt_of_many_seconds(benchmark: BenchmarkFixture, event_lines: Any) -> None:
    """They end together, and have begun in one of thirty seconds."""
    parts = encoder()
    values = pairs(["key"] * ENTRIES, 1e-5)
    for n in range(ENTRIES):
        values[n * 7 + 1] -= n % 30
    _, lines = benchmark(event_lines, parts, values, NOW_MS)
    assert len(lines) == 2 * ENTRIES


@both_halves
@pytest.mark.parametrize(
    ("head", "layout", "more"),
    [
        (MESSAGE_SENT, SENT, ""),
        (MESSAGE_FAILED, MESSAGE, DEMANDS[0] + failure("transient", ValueError("no"))),
    ],
    ids=["sent", "failed"],
)
def test_single_event(
    benchmark: BenchmarkFixture, event_lines: Any, head: str, layout: str, more: str
) -> None:
    parts = encoder()
    values = [
        value
        for n in range(ENTRIES)
        for value in (head, n * 1e-5, layout, PLACES[n % 4], 100_000 + n, f"key-{n % 250}", more)
    ]
    _, lines = benchmark(event_lines, parts, values, NOW_MS)
    assert len(lines) == ENTRIES
