"""Shutdown: nothing starts in a partition given up, and what was cut short is left uncommitted."""

from __future__ import annotations

import pytest

from prosody.middleware.shutdown import Shutdown
from prosody.model.outcome import ABANDONED, SUCCESS, Outcome
from prosody.model.run import Run
from tests.middleware.fakes import DEFERRED, PERMANENT, TRANSIENT, FakePartition, Inner, make_run


async def test_nothing_starts_when_the_partition_is_given_up() -> None:
    partition, inner = FakePartition(), Inner()
    partition.running = False
    assert await Shutdown().wrap(inner)(make_run(0, partition)) is ABANDONED
    assert inner.runs == []


@pytest.mark.parametrize(
    ("state", "outcome", "expected"),
    [
        ("running", TRANSIENT, TRANSIENT),
        ("running", PERMANENT, PERMANENT),
        ("draining", TRANSIENT, TRANSIENT),
        ("draining", PERMANENT, PERMANENT),
        ("cancelling", SUCCESS, SUCCESS),
        ("cancelling", DEFERRED, DEFERRED),
        ("cancelling", TRANSIENT, ABANDONED),
        ("cancelling", PERMANENT, PERMANENT),
        ("left behind", SUCCESS, SUCCESS),
        ("left behind", TRANSIENT, ABANDONED),
        ("left behind", PERMANENT, ABANDONED),
    ],
)
async def test_what_becomes_of_an_attempt(state: str, outcome: Outcome, expected: Outcome) -> None:
    partition = FakePartition()

    async def attempt(_: Run) -> Outcome:
        partition.running = state == "running"
        partition.cancelling = state in ("cancelling", "left behind")
        partition.closed = state == "left behind"
        return outcome

    assert await Shutdown().wrap(attempt)(make_run(0, partition)) is expected
