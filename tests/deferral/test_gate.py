"""The gate: when it closes and opens, what it says, and against a naive one."""

from __future__ import annotations

import logging
import random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosody.config.options_qos import DeferOptions
from prosody.deferral.gate import SAMPLE, Gate
from prosody.observe.storm import Storms


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def make_run() -> Any:
    return SimpleNamespaceRun()


class SimpleNamespaceRun(SimpleNamespace):
    __eq__ = object.__eq__  # two runs that look alike are two runs
    __hash__ = object.__hash__
    finished = False


class Bench:
    def __init__(self, threshold: float = 0.9, window_s: float = 300.0) -> None:
        self.clock = Clock()
        runtime = cast("Any", self.clock)
        options = DeferOptions(defer_failure_threshold=threshold, defer_failure_window=window_s)
        self.gate = Gate(options, runtime, Storms(runtime))

    def first(self, *, failed: bool, run: Any = None) -> bool:
        """A first attempt has ended, as the layer tells it; whether it may be deferred."""
        gate = self.gate
        run = run or make_run()
        gate.window.record(failed, self.clock.now)
        return self.later(failed=failed, run=run)

    def later(self, *, failed: bool, run: Any) -> bool:
        gate = self.gate
        if gate.closed:
            gate.attempted(run, failed=failed, now=self.clock.now)
        if not failed:
            return True
        allowed = gate.allows()
        if not allowed:
            gate.held(run)
        return allowed


def test_it_needs_a_sample() -> None:
    bench = Bench()
    assert [bench.first(failed=True) for _ in range(SAMPLE)] == [True] * (SAMPLE - 1) + [False]


def test_it_is_open_below_the_threshold() -> None:
    bench = Bench()
    for _ in range(3):
        bench.first(failed=False)
    assert all(bench.first(failed=True) for _ in range(26))  # 26 of 29
    assert not bench.first(failed=True)  # 27 of 30 are 0.9


def test_threshold_0_never_defers_and_1_only_stops_when_all_fail() -> None:
    bench = Bench(threshold=0.0)
    assert not bench.first(failed=True)
    assert not bench.gate.closed, "nothing to tell"
    bench = Bench(threshold=1.0)
    bench.first(failed=False)
    assert all(bench.first(failed=True) for _ in range(100))


def test_old_outcomes_do_not_count() -> None:
    bench = Bench()
    for _ in range(SAMPLE - 1):
        bench.first(failed=True)
    bench.clock.now = 301.0
    assert bench.first(failed=True)


def closed() -> tuple[Bench, Any]:
    bench = Bench()
    run = make_run()
    for _ in range(SAMPLE - 1):
        assert bench.first(failed=True)
    assert not bench.first(failed=True, run=run)
    return bench, run


def test_it_opens_when_what_it_held_back_succeeds_and_counts_anew() -> None:
    bench, run = closed()
    other = make_run()
    assert not bench.first(failed=True, run=other)
    bench.later(failed=False, run=run)
    assert bench.gate.closed
    assert not bench.later(failed=True, run=other)
    bench.later(failed=False, run=other)
    assert not bench.gate.closed
    assert all(bench.first(failed=True) for _ in range(SAMPLE - 1))
    assert not bench.first(failed=True)


def test_it_opens_when_what_it_held_back_was_given_up() -> None:
    bench, run = closed()
    run.finished = True
    assert bench.first(failed=True)


def test_it_opens_when_what_it_held_back_failed_for_good() -> None:
    bench, run = closed()
    bench.gate.dropped(run, 0.0)
    assert not bench.gate.closed


def test_one_that_never_succeeds_does_not_keep_it_closed() -> None:
    bench, run = closed()
    for _ in range(5):
        bench.later(failed=True, run=run)
    for _ in range(17):
        assert bench.gate.closed
        bench.later(failed=True, run=run)
    for _ in range(8):
        bench.later(failed=False, run=make_run())
        assert bench.gate.closed
    bench.later(failed=False, run=make_run())  # 11 of 20
    assert not bench.gate.closed


def test_some_luck_while_nearly_all_fails_does_not_open_it() -> None:
    """19 of 20 fail, in an order of chance: now and then 17 of 20 in a row."""
    bench, run = closed()
    chance = random.Random(1)
    fewest = 20
    latest: list[bool] = []
    for _ in range(5000):
        latest = [*latest[-19:], chance.random() < 0.95]
        bench.later(failed=latest[-1], run=run if latest[-1] else make_run())
        fewest = min(fewest, sum(latest)) if len(latest) == 20 else fewest
        assert bench.gate.closed
    assert fewest < 18


def test_it_opens_when_the_window_has_no_sample_any_more() -> None:
    bench, run = closed()
    bench.clock.now = 301.0
    assert bench.later(failed=True, run=run)


def test_it_says_so_once_each_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench, run = closed()
    for _ in range(10):
        bench.later(failed=True, run=run)
    bench.later(failed=False, run=run)
    bench.first(failed=False)
    levels = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in levels] == ["WARNING", "INFO"]
    assert "100.0 % of the first attempts in 300 s failed" in levels[0][1]
    assert "defer_failure_threshold is 90 %" in levels[0][1]
    assert "take in no more" in levels[0][1]
    assert "nothing of what was held back fails any more" in levels[1][1]


class Naive:
    """The rules once more, with lists, for attempts in one bucket of the window."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.firsts: list[bool] = []
        self.closed = False
        self.latest: list[bool] = []
        self.held: list[Any] = []
        self.any_held = False

    def rate(self) -> float | None:
        return sum(self.firsts) / len(self.firsts) if len(self.firsts) >= 20 else None

    def look(self) -> None:
        if not self.closed:
            return
        rate = self.rate()
        latest = self.latest[-20:]
        still = [run for run in self.held if not run.finished]
        if (
            rate is None
            or rate < self.threshold
            or (len(latest) == 20 and sum(latest) < self.threshold * 20 * 2 / 3)
            or (self.any_held and not still)
        ):
            self.closed = False
            self.firsts = []

    def ended(self, run: Any, failed: bool, first: bool) -> bool:
        if first:
            self.firsts.append(failed)
        if self.closed:
            self.latest.append(failed)
            if not failed and run in self.held:
                self.held.remove(run)
            self.look()
        if not failed:
            return True
        if self.closed:
            self.look()
        else:
            rate = self.rate()
            if rate is not None and rate >= self.threshold:
                self.closed, self.latest, self.held, self.any_held = True, [], [], False
        if self.closed:
            self.any_held = True
            if run not in self.held:
                self.held.append(run)
        return not self.closed


@given(
    st.sampled_from([0.5, 0.9, 1.0]),
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from([True, True, True, False]), st.booleans()),
        max_size=200,
    ),
)
def test_against_a_naive_one(threshold: float, steps: list[tuple[int, bool, bool]]) -> None:
    bench, naive = Bench(threshold), Naive(threshold)
    runs: list[Any] = []
    for number, failed, finishes in steps:
        if number >= len(runs):
            runs.append(make_run())
            run, first = runs[-1], True
        else:
            run, first = runs[number], False
        call = bench.first if first else bench.later
        assert call(failed=failed, run=run) == naive.ended(run, failed, first)
        assert bench.gate.closed == naive.closed
        if finishes or not failed:
            run.finished = True
            runs.remove(run)
