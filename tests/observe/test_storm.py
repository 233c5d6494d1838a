"""Storms: the first lines are written, the rest is counted, and the count is told."""

from __future__ import annotations

import logging

import pytest

from prosody.observe.storm import BURST, PER_S, QUIET_S, Storms
from tests.support import FakeRuntime

LOG = logging.getLogger("prosody.storm_test")


class Clock(FakeRuntime):
    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_a_burst_is_written_and_then_one_line_a_second() -> None:
    clock = Clock()
    storm = Storms(clock).of(LOG)
    assert [storm.allows(logging.WARNING) for _ in range(BURST)] == [""] * BURST
    assert [storm.allows(logging.WARNING) for _ in range(7)] == [None] * 7
    clock.now += 1 / PER_S
    assert storm.allows(logging.WARNING) == " (7 more like this in the last 1 s)"
    assert storm.allows(logging.WARNING) is None
    assert storm.total == 8


def test_after_a_pause_there_is_a_burst_again() -> None:
    clock = Clock()
    storm = Storms(clock).of(LOG)
    for _ in range(3):
        assert [storm.allows(logging.WARNING) for _ in range(BURST)] == [""] * BURST
        clock.now += BURST / PER_S


def test_what_was_left_out_is_told_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    storms = Storms(clock)
    storm = storms.of(LOG)
    for _ in range(BURST + 3):
        storm.allows(logging.ERROR)
    clock.now += QUIET_S - 0.1
    storms.settle()
    assert not caplog.records
    clock.now += 0.1
    storms.settle()
    storms.settle()
    (line,) = caplog.records
    assert line.levelno == logging.ERROR
    assert line.getMessage() == (
        "until 5 s ago it was the same line again (3 more like this in the last 5 s)"
    )


def test_one_sort_of_lines_leaves_another_alone() -> None:
    storms = Storms(Clock())
    one, other = storms.of(LOG), storms.of(LOG)
    for _ in range(BURST + 1):
        one.allows(logging.WARNING)
    assert other.allows(logging.WARNING) == ""


def test_what_comes_and_goes_has_one_in_common() -> None:
    storms = Storms(Clock())
    for _ in range(BURST):
        assert storms.common(LOG).allows(logging.WARNING) == ""
    assert storms.common(LOG).allows(logging.WARNING) is None
    assert storms.of(LOG).allows(logging.WARNING) == ""


def test_nothing_is_left_out_for_debugging(caplog: pytest.LogCaptureFixture) -> None:
    storm = Storms(Clock()).of(LOG)
    caplog.set_level(logging.DEBUG, LOG.name)
    assert [storm.allows(logging.WARNING) for _ in range(3 * BURST)] == [""] * 3 * BURST


def test_a_level_that_is_off_costs_and_counts_nothing(caplog: pytest.LogCaptureFixture) -> None:
    storm = Storms(Clock()).of(LOG)
    caplog.set_level(logging.ERROR, LOG.name)
    assert [storm.allows(logging.WARNING) for _ in range(3 * BURST)] == [None] * 3 * BURST
    assert storm.allows(logging.ERROR) == ""
    assert storm.total == 0
