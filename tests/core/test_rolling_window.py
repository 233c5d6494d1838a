"""The rolling windows: both halves against the naive models, and those against exact figures."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import inf, nan, nextafter, ulp
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.core.halves import HALVES, core_class
from tests.core.naive_windows import NaiveOutcomeWindow, NaiveTimeWindow
from tests.core.side_by_side import SideBySide

NAN = float("nan")  # equal to itself by identity only, which is what dicts go by
KEYS = st.sampled_from(["", "a", "b", "c", 1, True, 1.0, None, ("a", 1), NAN, *range(2, 12)])
UNHASHABLE = st.sampled_from([[], {}, ("a", [])])
WINDOWS = st.sampled_from([64.0, 300.0, 300, 1.0, 0.3, 7.7, 86_400.0, 1e-6, 1e12])
STARTS = st.sampled_from([0.0, -0.0, 12.5, -700.0, 2_592_000.0, 1.8e9])
# In windows: how far time moves on. Below 0 it goes back, which is clamped.
STEPS = (
    st.sampled_from([0.0, 1 / 64, 1 / 128, 63 / 64, 1.0, 65 / 64, 1.02, 2.0, 5_000.0, 1e-9])
    | st.sampled_from([1 / 640] * 5 + [-1e-3, -1 / 64, -1.0, -3.0])
    | st.floats(0, 0.05)
    | st.floats(0, 1.1)
)
LIMITS = (
    st.sampled_from([0.0, -0.0, 1 / 64, 0.5, 0.9, 1.0, 2.0, inf, nextafter(1.0, 0)])
    | st.floats(0, 1)
    | st.floats(0, 1e-3)
)
NO_TIME = st.sampled_from(
    [nan, inf, -inf, 10**400, -(10**400), 1e300, True, "1.0", None, Decimal(1)]
)
NO_LIMIT = st.sampled_from([nan, -1.0, -5e-324, -(10**400), True, "1", None])


@pytest.fixture(params=list(HALVES))
def time_window(request: pytest.FixtureRequest) -> Any:
    return core_class(request.param, "TimeWindow")


@pytest.fixture(params=list(HALVES))
def outcome_window(request: pytest.FixtureRequest) -> Any:
    return core_class(request.param, "OutcomeWindow")


class Windows(RuleBasedStateMachine):
    """The clock that both machines share."""

    now = 0.0
    window = 1.0

    @property
    def farthest(self) -> float:
        return self.window / 64 * 2**50

    def start(self, window: float, start: float) -> None:
        self.window = window
        self.now = min(start, self.farthest)

    def later(self, step: float) -> float:
        moved = self.now + step * self.window
        if abs(moved) <= self.farthest:
            self.now = max(self.now, moved)
            return moved
        return self.now

    def slack(self, naive: Any, events: int) -> Fraction:
        """What ticks and the spacing of floats may add up to, over so many times."""
        latest = 0.0 if naive.latest == -inf else naive.latest
        spacing = Fraction(ulp(max(abs(latest), self.window)))
        return (events + 1) * (Fraction(self.window) / 2**36 + 8 * spacing)


class TimeWindowMachine(Windows):
    @initialize(window=WINDOWS, cache_size=st.sampled_from([1, 2, 3, 8, 17, 100]), start=STARTS)
    def make(self, window: float, cache_size: int, start: float) -> None:
        self.start(window, start)
        self.naive = NaiveTimeWindow(window, cache_size)
        self.windows = SideBySide(
            "TimeWindow",
            naive=self.naive,
            cython=core_class("cython", "TimeWindow")(window, cache_size),
            python=core_class("python", "TimeWindow")(window, cache_size),
        )

    @rule(key=KEYS, step=STEPS)
    def begin(self, key: Any, step: float) -> None:
        self.windows.call("begin", key, self.later(step))

    @precondition(lambda self: self.naive.began)
    @rule(index=st.integers(0, 100), step=STEPS)
    def end(self, index: int, step: float) -> None:
        running = list(self.naive.began)
        self.windows.call("end", running[index % len(running)], self.later(step))

    @rule(key=KEYS, step=STEPS)
    def end_of_any_key(self, key: Any, step: float) -> None:
        self.windows.call("end", key, self.later(step))

    @rule(keys=st.lists(KEYS, min_size=2, max_size=12), step=STEPS)
    def run_each(self, keys: list[Any], step: float) -> None:
        for key in keys:
            self.windows.answer("begin", key, self.later(step / 16))
            self.windows.answer("end", key, self.later(step / 16))
        self.windows.compare()

    @rule(count=st.integers(1, 20), step=STEPS)
    def run_fresh_keys(self, count: int, step: float) -> None:
        for number in range(count):
            self.windows.answer("begin", ("fresh", self.now, number), self.later(step / 32))
            self.windows.answer("end", ("fresh", self.now, number), self.now)
            self.windows.answer("end", ("fresh", self.now, number), self.now)
        self.windows.compare()

    @rule(key=KEYS, count=st.integers(1, 30), step=STEPS)
    def run_one_often(self, key: Any, count: int, step: float) -> None:
        for _ in range(count):
            self.windows.answer("begin", key, self.later(step / 64))
            self.windows.answer("end", key, self.later(step / 32))
        self.windows.compare()

    @rule(key=KEYS, step=STEPS)
    def used(self, key: Any, step: float) -> None:
        seconds = self.windows.call("used", key, self.later(step))
        exact = self.naive.exact_used(key)
        slack = self.slack(self.naive, len(self.naive.times.get(key, [])))
        bucket = Fraction(self.window) / 64
        assert 0.0 <= seconds <= self.window
        assert exact - slack <= Fraction(seconds) <= exact + bucket / 2 + slack

    @rule(key=KEYS, limit=LIMITS, step=STEPS)
    def room_at(self, key: Any, limit: float, step: float) -> None:
        limit *= self.window
        room = self.windows.call("room_at", key, limit, self.later(step))
        now = self.naive.latest
        assert now <= room
        if room == now:
            assert self.naive.used(key, now) <= limit
            return
        # Whether it is true, on halves made anew and told the runs: asking moves the clock.
        spacing = 16 * ulp(max(abs(room), self.window))
        for before, fits in ((max(now, room - spacing), False), (room, True)):
            ticks = self.naive.ticks_at(key, self.naive.place(before))
            seconds = ticks * (self.window / 2**37)
            assert (seconds <= limit) is fits or (before > room - spacing and not fits)

    @rule(key=KEYS, limit=LIMITS)
    def wait_for_room(self, key: Any, limit: float) -> None:
        """Go to the time that was named, with the run in progress ended first."""
        limit *= self.window
        if key in self.naive.began:
            self.windows.call("end", key, self.now)
        room = self.windows.call("room_at", key, limit, self.now)
        if room <= self.farthest:
            assert self.windows.call("used", key, room) <= limit
            self.now = max(self.now, room)

    @rule(key=KEYS, now=NO_TIME, method=st.sampled_from(["begin", "end", "used"]))
    def no_time(self, key: Any, now: Any, method: str) -> None:
        self.windows.call(method, key, now)

    @rule(key=KEYS | UNHASHABLE, limit=NO_LIMIT, now=NO_TIME | STEPS)
    def no_limit(self, key: Any, limit: Any, now: Any) -> None:
        self.windows.call("room_at", key, limit, now)

    @rule(key=UNHASHABLE, method=st.sampled_from(["begin", "end", "used"]), step=STEPS)
    def unhashable(self, key: Any, method: str, step: float) -> None:
        # Refused calls do not move the clock: nothing after this may differ from the model.
        self.windows.call(method, key, self.now + abs(step) * self.window)


class OutcomeWindowMachine(Windows):
    @initialize(window=WINDOWS, minimum=st.sampled_from([1, 2, 20]), start=STARTS)
    def make(self, window: float, minimum: int, start: float) -> None:
        self.start(window, start)
        self.naive = NaiveOutcomeWindow(window, minimum)
        self.windows = SideBySide(
            "OutcomeWindow",
            naive=self.naive,
            cython=core_class("cython", "OutcomeWindow")(window, minimum),
            python=core_class("python", "OutcomeWindow")(window, minimum),
        )

    @rule(failed=st.booleans(), step=STEPS)
    def record(self, failed: bool, step: float) -> None:
        self.windows.call("record", failed, self.later(step))

    @rule(outcomes=st.lists(st.booleans(), min_size=2, max_size=30), step=STEPS)
    def record_many(self, outcomes: list[bool], step: float) -> None:
        for failed in outcomes:
            self.windows.answer("record", failed, self.later(step / 64))
        self.windows.compare()

    @rule(step=STEPS)
    def counts(self, step: float) -> None:
        counts = self.windows.call("counts", self.later(step))
        slack = self.slack(self.naive, 0)
        window = Fraction(self.window)
        most = self.naive.exact_counts(window + slack)
        least = self.naive.exact_counts(window - window / 64 - slack)
        for low, given, high in zip(least, counts, most, strict=True):
            assert low <= given <= high

    @rule(step=STEPS)
    def failure_rate(self, step: float) -> None:
        rate = self.windows.call("failure_rate", self.later(step))
        assert rate is None or 0.0 <= rate <= 1.0

    @rule(now=NO_TIME, method=st.sampled_from(["counts", "failure_rate"]))
    def no_time(self, now: Any, method: str) -> None:
        self.windows.call(method, now)

    @rule(failed=st.sampled_from([0, 1, None, "no", 0.0]) | st.booleans(), now=NO_TIME | STEPS)
    def no_outcome(self, failed: Any, now: Any) -> None:
        if type(failed) is not bool or type(now) is not float:
            self.windows.call("record", failed, now)


TestTimeWindowAgainstModel = TimeWindowMachine.TestCase
TestTimeWindowAgainstModel.settings = settings(deadline=None)
TestOutcomeWindowAgainstModel = OutcomeWindowMachine.TestCase
TestOutcomeWindowAgainstModel.settings = settings(deadline=None)
# The long profile, and shrinking a failure, take longer than a test otherwise may.
TestTimeWindowAgainstModel.pytestmark = [pytest.mark.timeout(3_600)]
TestOutcomeWindowAgainstModel.pytestmark = [pytest.mark.timeout(3_600)]


def run(window: Any, key: Any, begin: float, end: float) -> None:
    window.begin(key, begin)
    window.end(key, end)


def test_a_run_counts_up_to_now_and_then_leaves_the_window(time_window: Any) -> None:
    window = time_window(64.0, 10)
    window.begin("a", 100.0)
    assert [window.used("a", 100.0 + ahead) for ahead in (0, 1.5, 40)] == [0.0, 1.5, 40.0]
    window.end("a", 150.5)
    for now, used in [(150.5, 50.5), (164.0, 50.5), (165.0, 49.5), (190.0, 24.5)]:
        assert window.used("a", now) == used
    assert (window.used("a", 214.0), window.remembered) == (0.5, 1)
    assert (window.used("a", 214.75), window.remembered) == (0.25, 1), (
        "half a bucket may be too much"
    )
    assert (window.used("a", 215.0), window.remembered) == (0.0, 0)


def test_a_run_longer_than_the_window_is_the_whole_window(time_window: Any) -> None:
    window = time_window(0.3, 10)
    window.begin("a", 5.0)
    assert window.used("a", 5.3 + 1e-9) == 0.3
    assert window.used("a", 1e6) == 0.3
    window.end("a", 1e6)
    assert window.used("a", 1e6) == 0.3


def test_every_run_of_many_counts_and_no_error_gathers(time_window: Any) -> None:
    """A million runs of 90 us every 200 us: 45 % of the window, whatever the number of runs."""
    window = time_window(64.0, 10)
    for number in range(1_000_000):
        run(window, "a", number * 2e-4, number * 2e-4 + 9e-5)
    assert window.used("a", 200.0) == pytest.approx(0.45 * 64, abs=0.5)
    assert window.used("a", 200.0) == pytest.approx(0.45 * 64, abs=1e-4), "at the end of a bucket"


def test_room_is_when_the_limit_is_kept(time_window: Any) -> None:
    window = time_window(64.0, 10)
    run(window, "a", 100.0, 160.25)
    assert window.room_at("a", 57.6, 160.5) == pytest.approx(100.0 + 64.0 + 2.65, abs=1e-6)
    assert window.room_at("a", 60.25, 160.5) == 160.5
    assert window.room_at("a", 0.0, 160.5) == 161.0 + 64.0, "its last bucket must be over"
    assert window.room_at("b", 0.0, 161.0) == 161.0
    window.begin("a", 162.0)
    assert window.room_at("a", 30.0, 165.0) == pytest.approx(197.25, abs=1e-6)
    for limit in (64.0, 100, inf):
        assert window.room_at("a", limit, 1_000.0) == 1_000.0
    assert window.used("a", 1_000.0) == 64.0


@pytest.mark.parametrize("cache_size", [1, 7, 64])
def test_the_key_with_the_least_time_goes(time_window: Any, cache_size: int) -> None:
    window = time_window(64_000.0, cache_size)
    for number in range(cache_size):
        run(window, number, 100.0 * number, 100.0 * number + 1 + (number * 7) % cache_size)
    run(window, "more", 7_000.0, 7_005.5)
    assert window.remembered == cache_size
    used = {number: window.used(number, 7_006.0) for number in [*range(cache_size), "more"]}
    evicted = [number for number, seconds in used.items() if not seconds]
    assert evicted == [0], "it had one second"


def test_a_flood_of_keys_does_not_reset_a_key_that_used_much(time_window: Any) -> None:
    window = time_window(300.0, 100)
    run(window, "hot", 0.0, 275.0)
    for number in range(100_000):
        run(window, number, 275.0 + number * 1e-4, 275.0 + number * 1e-4 + 9e-5)
    assert window.used("hot", 285.0) == pytest.approx(275.0, abs=1e-6)
    assert window.remembered == 100
    window.check_valid()


def test_a_busy_key_of_short_runs_is_seen_in_a_full_cache(time_window: Any) -> None:
    """Each of its runs is shorter than what any other key used; it runs nearly all of the time."""
    window = time_window(300.0, 64)
    now = 0.0
    for number in range(64):
        run(window, number, now, now + 0.5)
        now += 0.1
    for number in range(3_000):
        window.begin("hot", now)
        run(window, ("other", number), now, now + 0.06)
        run(window, ("another", number), now, now + 0.06)
        now += 0.09
        window.end("hot", now)
        run(window, ("meanwhile", number), now, now + 0.01)
        now += 0.01
    assert window.used("hot", now) >= 0.89 * 300.0


def test_running_keys_do_not_count_against_the_cache(time_window: Any) -> None:
    window = time_window(64.0, 2)
    for number in range(10):
        window.begin(number, 0.0)
    assert window.remembered == 10
    for number in range(10):
        window.end(number, 1.0 + number)
        window.check_valid()
    assert (window.remembered, window.running) == (2, 0)
    assert [window.used(number, 11.0) for number in range(10)] == [0.0] * 8 + [9.0, 10.0]


def test_a_time_that_goes_back_counts_as_the_latest(time_window: Any, outcome_window: Any) -> None:
    window = time_window(64.0, 10)
    window.begin("a", 100.0)
    window.end("a", 50.0)
    assert (window.used("a", 0.0), window.remembered) == (0.0, 0)
    assert window.room_at("a", 0.0, -5) == 100.0
    outcomes = outcome_window(64.0, 1)
    outcomes.record(True, 100.0)
    outcomes.record(True, -1e9)
    assert outcomes.counts(0.0) == (0, 2)
    assert outcomes.counts(200.0) == (0, 0)


def test_thirty_days_on(time_window: Any) -> None:
    window = time_window(300.0, 10)
    run(window, "a", 0.0, 100.0)
    month = 30 * 86_400.0
    run(window, "a", month, month + 270.0)
    assert window.used("a", month + 270.0) == pytest.approx(270.0, abs=1e-6)
    assert window.used("a", 2 * month) == 0.0


def test_no_rate_below_the_minimum_and_none_of_what_is_old(outcome_window: Any) -> None:
    window = outcome_window(64.0, 20)
    for number in range(19):
        window.record(True, 0.1 * number)
    assert (window.failure_rate(2.0), window.counts(2.0)) == (None, (0, 19))
    window.record(False, 2.5)
    assert window.failure_rate(2.5) == 0.95
    assert (window.counts(64.5), window.failure_rate(64.5)) == ((1, 9), None)
    assert window.counts(66.5) == (0, 0)


@pytest.mark.parametrize("name", list(HALVES))
def test_what_they_are_made_with_is_checked_alike(name: str) -> None:
    right = {"window": 300.0, "cache_size": 10}
    wrong = [
        ({"window": value}, text)
        for value, text in [
            (0.0, "window must lie between 1e-06 and 1000000000000.0 seconds, not 0.0"),
            (-1, "window must lie between 1e-06 and 1000000000000.0 seconds, not -1.0"),
            (nan, "window must lie between 1e-06 and 1000000000000.0 seconds, not nan"),
            (10**400, "window must lie between 1e-06 and 1000000000000.0 seconds, not inf"),
            (True, "window must be a float, not bool"),
            ("5m", "window must be a float, not str"),
        ]
    ] + [
        ({"cache_size": value}, text)
        for value, text in [
            (0, "cache_size must lie between 1 and 2147483647, not 0"),
            (-(10**400), "cache_size must lie between 1 and 2147483647, not an int of 1329 bits"),
            (1.0, "cache_size must be an int, not float"),
            (True, "cache_size must be an int, not bool"),
        ]
    ]
    for changed, text in wrong:
        with pytest.raises((TypeError, ValueError)) as refusal:
            core_class(name, "TimeWindow")(**(right | changed))
        assert str(refusal.value) == f"TimeWindow: {text}"
    texts = {}
    for arguments, named in [
        ((), {}),
        ((1.0,), {}),
        ((1.0, 2, 3), {}),
        ((1.0,), {"window": 1.0}),
        ((1.0,), {"size": 1}),
    ]:
        with pytest.raises(TypeError) as refusal:
            core_class(name, "OutcomeWindow")(*arguments, **named)
        texts[str(refusal.value)] = arguments
    assert list(texts) == ["OutcomeWindow() takes exactly two arguments: window and minimum"]
    assert repr(core_class(name, "OutcomeWindow")(minimum=3, window=5)) == (
        "OutcomeWindow(window=5.0, minimum=3, successes=0, failures=0)"
    )
