"""The virtual-time heap: both halves against the naive model, then single rules, one by one."""

from __future__ import annotations

from decimal import Decimal
from math import inf, nan
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.core.halves import HALVES
from tests.core.naive_vtime import NaiveVirtualTimeHeap
from tests.core.side_by_side import SideBySide
from tests.core.vtime import DEFAULTS, FAILURE, NORMAL, made

NAN = float("nan")  # equal to itself by identity only, which is what dicts go by
KEYS = st.sampled_from(["", "a", "b", "c", 1, True, 1.0, None, ("a", 1), NAN, *range(2, 12)])
UNHASHABLE = st.sampled_from([[], {}, ("a", [])])
CLASSES = st.sampled_from([0, 0, 0, 1, 1, True, 0.0])
# In half-lives: how far time moves on. Below 0 it goes back, which is clamped.
STEPS = (
    st.sampled_from(
        [0.0, 0.0, 1e-9, 1e-3, 0.1, 0.725, 1.0, 1.5, 30.0, 511.0, 512.0, 513.0, 5_000.0]
    )
    | st.sampled_from([-1e-3, -1.0, -600.0])
    | st.floats(0, 2)
)
RUNS = (
    st.sampled_from([0.0, -0.0, 5e-324, 1e-9, 0.05, 0.05, 0.05, 1.0, 120.0, 1e9, 1e300, 1, 10**300])
    | st.floats(0, 100)
    | st.integers(0, 3).map(float)
)
NO_NUMBER = st.sampled_from([nan, inf, -inf, 10**400, -(10**400), True, "1.0", None, Decimal(1)])


class VirtualTimeHeapMachine(RuleBasedStateMachine):
    @initialize(
        failure_weight=st.sampled_from([0.3, 0.3, 0.5, 0, 1, 0.0, 1.0, 1e-300, 5e-324]),
        max_wait=st.sampled_from([120.0, 120.0, 1, 0.01, 5e-324, 1e308]),
        wait_weight=st.sampled_from([200.0, 200, 1.0, 0, 0.0, 1e-300, 1e308]),
        cache_size=st.sampled_from([1, 2, 3, 8192, 2**63 - 1]),
        half_life=st.sampled_from([120.0, 120, 1.0, 0.01, inf, 5e-324, 1e308]),
        start=st.sampled_from([0.0, -0.0, 12.5, -700.0, 2_592_000.0, 1.8e9, -1e308]),
    )
    def make(self, start: float, **given: Any) -> None:
        self.naive = NaiveVirtualTimeHeap(**given)
        self.heaps = SideBySide(
            "VirtualTimeHeap", naive=self.naive, **{half: made(half, **given) for half in HALVES}
        )
        self.unit = min(max(float(given["half_life"]), 1e-3), 1e4)
        self.now = start
        self.pushes = 0

    def call(self, method: str, *arguments: Any) -> Any:
        answer = self.heaps.call(method, *arguments)
        for number in (0, 1):
            self.heaps.answer("class_time", number, self.now)
        self.heaps.answer("virtual_times", self.now)
        self.heaps.answer("waiting_since")
        for key in list(self.naive.debts):
            self.heaps.answer("virtual_time", key, self.now)
        for key in list(self.naive.lines):
            self.heaps.answer("priority", key, self.now)
        return answer

    def push_one(self, key: Any, work_class: Any = 0) -> None:
        self.pushes += 1
        self.call("push", key, ("entry", self.pushes), work_class, self.now)

    @rule(step=STEPS)
    def let_time_pass(self, step: float) -> None:
        self.now = self.now + step * self.unit
        self.call("class_time", 0, self.now)

    @rule(key=KEYS, work_class=CLASSES)
    def push(self, key: Any, work_class: Any) -> None:
        self.push_one(key, work_class)

    @rule(keys=st.lists(KEYS, min_size=2, max_size=12), step=st.sampled_from([0.0, 1e-3, 0.1]))
    def push_many(self, keys: list[Any], step: float) -> None:
        for number, key in enumerate(keys):
            self.push_one(key, number % 5 == 4)
            self.now += step * self.unit

    @rule(count=st.integers(60, 140) | st.just(420))
    def fill_and_empty(self, count: int) -> None:
        # Beyond the least capacity of the lines, and of the short ones in Python, and back.
        for number in range(count):
            self.pushes += 1
            self.heaps.answer("push", ("many", number), self.pushes, number % 3 == 0, self.now)
        for number in range(count):
            if number % 7:
                self.heaps.answer("withdraw", ("many", number))
        self.call("pop", self.now)

    @rule(count=st.integers(1, 4), step=STEPS)
    def pop(self, count: int, step: float) -> None:
        for _ in range(count):
            self.call("pop", self.now)
        self.now += step * self.unit

    @precondition(lambda self: self.naive.flying)
    @rule(index=st.integers(0, 100), used=RUNS)
    def complete(self, index: int, used: float) -> None:
        flying = list(self.naive.flying)
        self.call("complete", flying[index % len(flying)], used, self.now)

    @precondition(lambda self: self.naive.flying)
    @rule(used=st.lists(RUNS, min_size=1, max_size=8), again=st.booleans())
    def complete_many(self, used: list[float], again: bool) -> None:
        for key, run in zip(list(self.naive.flying), used, strict=False):
            self.call("complete", key, run, self.now)
            if again:
                self.push_one(key)

    @precondition(lambda self: self.naive.flying)
    @rule(index=st.integers(0, 100))
    def give_back(self, index: int) -> None:
        flying = list(self.naive.flying)
        self.call("give_back", flying[index % len(flying)], self.now)

    @precondition(lambda self: self.naive.lines)
    @rule(index=st.integers(0, 100))
    def withdraw(self, index: int) -> None:
        waiting = list(self.naive.lines)
        self.call("withdraw", waiting[index % len(waiting)])

    @rule(key=KEYS | UNHASHABLE)
    def of_any_key(self, key: Any) -> None:
        self.call("complete", key, 1.0, self.now)
        self.call("give_back", key, self.now)
        self.call("withdraw", key)
        self.call("priority", key, self.now)
        self.call("virtual_time", key, self.now)

    @rule(key=KEYS | UNHASHABLE, number=NO_NUMBER)
    def bad_numbers(self, key: Any, number: Any) -> None:
        self.call("push", key, "entry", 0, number)
        self.call("pop", number)
        self.call("virtual_times", number)
        self.call("complete", key, 1.0, number)
        self.call("complete", key, number, self.now)
        self.call("complete", key, -1.0, self.now)
        self.call("give_back", key, number)
        self.call("virtual_time", key, number)
        self.call("priority", key, number)
        self.call("class_time", 0, number)

    @rule(key=KEYS | UNHASHABLE, work_class=st.sampled_from([2, -1, None, "0", 0.5, nan]))
    def bad_pushes(self, key: Any, work_class: Any) -> None:
        self.call("push", key, "entry", work_class, self.now)
        self.call("push", key, None, 0, self.now)
        self.call("class_time", work_class, self.now)


TestVirtualTimeHeapAgainstModel = VirtualTimeHeapMachine.TestCase
TestVirtualTimeHeapAgainstModel.settings = settings(deadline=None)
# The long profile, and shrinking a failure, take longer than a test otherwise may.
TestVirtualTimeHeapAgainstModel.pytestmark = [pytest.mark.timeout(3_600)]


@pytest.fixture(params=list(HALVES))
def half(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(heap: Any, key: str, used: float, now: float, work_class: int = NORMAL) -> None:
    """One run of ``key``, alone in its class."""
    heap.push(key, key, work_class, now)
    assert heap.pop(now) == key
    heap.complete(key, used, now)


@pytest.mark.parametrize("half", list(HALVES))
def test_of_two_zeros_the_earlier_call_counts(half: str) -> None:
    """A time that is equal to the latest one is not later, whatever its sign."""
    heap = made(half)
    heap.pop(-0.0)
    heap.push("key", "entry", NORMAL, 0.0)
    assert str(heap.waiting_since()) == "{'key': -0.0}"


def test_least_virtual_time_first(half: str) -> None:
    heap = made(half)
    run(heap, "a", 3.0, 0.0)
    run(heap, "b", 1.0, 0.0)
    run(heap, "c", 2.0, 0.0)
    for key in "abcd":
        heap.push(key, key, NORMAL, 0.0)
    assert [heap.pop(0.0) for _ in range(5)] == ["d", "b", "c", "a", None]


def test_equals_go_by_arrival(half: str) -> None:
    heap = made(half)
    for key in "cab":
        heap.push(key, key, NORMAL, 5.0)
    assert [heap.pop(5.0) for _ in range(3)] == ["c", "a", "b"]


def test_virtual_time_halves_in_a_half_life(half: str) -> None:
    heap = made(half)
    run(heap, "a", 80.0, 1_000.0)
    assert heap.virtual_time("a", 1_000.0) == 80.0
    for half_lives in (0.5, 1, 3, 10):
        expected = pytest.approx(80.0 * 2**-half_lives, rel=1e-13)
        assert heap.virtual_time("a", 1_000.0 + 120 * half_lives) == expected
    assert heap.virtual_time("b", 1_000.0) == 0.0


def test_without_decay_nothing_is_forgiven(half: str) -> None:
    heap = made(half, half_life=inf)
    run(heap, "a", 80.0, 0.0)
    assert heap.virtual_time("a", 1e12) == 80.0
    assert heap.class_time(NORMAL, 1e12) == 80.0


@pytest.mark.parametrize(
    ("wait", "boost"), [(30, 12.5), (60, 50), (90, 112.5), (120, 200), (500, 200)]
)
def test_the_boost_is_quadratic_and_saturates(half: str, wait: float, boost: float) -> None:
    heap = made(half)
    heap.push("a", "a", NORMAL, 10.0)
    assert heap.priority("a", 10.0 + wait) == -boost


def test_a_busy_key_that_waits_beats_a_fresh_one_after_87_seconds(half: str) -> None:
    heap = made(half)
    heap.push("busy", "busy", NORMAL, 0.0)
    heap.pop(0.0)
    heap.complete("busy", 173.1234, 0.0)
    heap.push("busy", "busy", NORMAL, 0.0)
    heap.push("fresh", "fresh", NORMAL, 86.8)
    assert heap.pop(86.8) == "fresh"
    heap.push("fresh 2", "fresh 2", NORMAL, 87.0)
    assert heap.pop(87.0) == "busy"


def test_the_classes_share(half: str) -> None:
    heap = made(half, half_life=inf)
    for number in range(100):
        heap.push(("n", number), "n", NORMAL, 0.0)
        heap.push(("f", number), "f", FAILURE, 0.0)
    served = ""
    counts = {"n": 0, "f": 0}
    for _ in range(100):
        kind = heap.pop(0.0)
        served += kind
        heap.complete((kind, counts[kind]), 1.0, 0.0)
        counts[kind] += 1
    assert counts == {"n": 70, "f": 30}
    assert served[:7] == "nfnnfnn", "equal scores: normal first"


def test_the_estimate_keeps_one_class_from_taking_every_slot(half: str) -> None:
    heap = made(half, half_life=inf)
    run(heap, "n", 1.0, 0.0)
    run(heap, "f", 0.5, 0.0, FAILURE)
    for number in range(20):
        heap.push(("n", number), "n", NORMAL, 0.0)
        heap.push(("f", number), "f", FAILURE, 0.0)
    assert [heap.pop(0.0) for _ in range(10)] == by_hand(10)


def by_hand(count: int) -> list[str]:
    """Dispatches at estimates of 1 s and 0.5 s, from 1 s and 0.5 s charged."""
    normal, failure, order = 10, 5, []
    for _ in range(count):
        if failure * 7 < normal * 3:
            failure += 5
            order.append("f")
        else:
            normal += 10
            order.append("n")
    return order


def test_the_estimate_is_charged_reconciled_and_given_back(half: str) -> None:
    heap = made(half)
    run(heap, "a", 3.0, 0.0)
    run(heap, "b", 1.0, 0.0)
    assert heap.class_time(NORMAL, 0.0) == 4.0
    for key in "cd":
        heap.push(key, key, NORMAL, 0.0)
        heap.pop(0.0)
    assert heap.class_time(NORMAL, 0.0) == 8.0, "twice the mean of 3 and 1"
    heap.give_back("c", 0.0)
    assert heap.class_time(NORMAL, 0.0) == 6.0
    assert heap.virtual_time("c", 0.0) == 0.0
    heap.complete("d", 0.5, 0.0)
    assert heap.class_time(NORMAL, 0.0) == 4.5
    assert heap.class_time(FAILURE, 0.0) == 0.0


def test_what_was_charged_as_an_estimate_is_given_back_to_the_last_bit(half: str) -> None:
    heap = made(half)
    run(heap, "a", 0.1, 0.0)
    settled = heap.class_time(NORMAL, 0.0)
    for number in range(7):
        heap.push(number, number, NORMAL, 0.3 * number)
    for number in range(7):
        assert heap.pop(2.0 + number / 3) == number
    for number in range(7):
        heap.give_back(number, 5.0)
    assert heap.class_time(NORMAL, 0.0) == heap.class_time(NORMAL, 5.0)
    assert heap.class_time(NORMAL, 5.0) == pytest.approx(settled * 2 ** (-5 / 120), rel=1e-15)


@pytest.mark.parametrize(("weight", "first"), [(0.0, "n"), (1.0, "f")])
def test_a_class_of_weight_0_runs_when_the_other_is_empty(
    half: str, weight: float, first: str
) -> None:
    heap = made(half, failure_weight=weight)
    for number in range(3):
        heap.push(("f", number), "f", FAILURE, 0.0)
        heap.push(("n", number), "n", NORMAL, 0.0)
    assert heap.pop(0.0) == first
    heap.complete((first, 0), 1e6, 0.0)
    order = [heap.pop(0.0) for _ in range(6)]
    assert order[:2] == [first] * 2
    assert first not in order[2:]


def test_the_least_debt_is_forgotten_first(half: str) -> None:
    heap = made(half, cache_size=3)
    for key, used in [("old", 9.0), ("b", 2.0), ("c", 3.0), ("d", 4.0)]:
        run(heap, key, used, 0.0)
    assert (heap.remembered, heap.virtual_time("b", 0.0)) == (3, 0.0)
    run(heap, "tiny", 1.0, 0.0)
    assert (heap.remembered, heap.virtual_time("tiny", 0.0)) == (3, 0.0)
    run(heap, "equal", 3.0, 0.0)
    assert heap.virtual_time("c", 0.0) == 0.0, "of equals the one idle longest"
    assert heap.virtual_time("equal", 0.0) == 3.0
    assert heap.virtual_time("old", 0.0) == 9.0
    # Decayed debts compare, not those once charged.
    run(heap, "late", 3.5, 240.0)
    assert heap.virtual_time("equal", 240.0) == 0.0
    heap.check_valid()


def test_flooding_keys_does_not_reset_a_debt(half: str) -> None:
    heap = made(half, cache_size=64)
    run(heap, "attacker", 100.0, 0.0)
    for number in range(10_000):
        run(heap, f"fresh {number}", 0.05, number * 1e-3)
    assert heap.virtual_time("attacker", 10.0) == pytest.approx(100 * 2 ** (-10 / 120))
    assert heap.remembered == 64


def test_waiting_and_dispatched_keys_are_remembered_besides(half: str) -> None:
    heap = made(half, cache_size=1)
    for key in "abc":
        run(heap, key, 1.0, 0.0)
        heap.push(key, key, NORMAL, 0.0)
    heap.pop(0.0)
    for key in "de":
        heap.push(key, key, FAILURE, 0.0)
    assert heap.remembered == 5
    assert all(heap.virtual_time(key, 0.0) == 1.0 for key in "abc")


def test_a_key_that_owes_nothing_is_forgotten(half: str) -> None:
    heap = made(half)
    run(heap, "a", 0.0, 0.0)
    heap.push("b", "b", NORMAL, 0.0)
    assert heap.withdraw("b") == "b"
    heap.push("c", "c", NORMAL, 0.0)
    heap.pop(0.0)
    heap.give_back("c", 0.0)
    assert heap.remembered == 0


def test_time_that_goes_back_is_clamped(half: str) -> None:
    heap = made(half)
    heap.push("a", "a", NORMAL, 100.0)
    heap.push("b", "b", NORMAL, 40.0)
    assert heap.priority("b", 160.0) == heap.priority("a", 160.0)
    assert heap.priority("a", 0.0) == 0.0
    assert heap.pop(50.0) == "a"
    heap.complete("a", 8.0, 0.0)
    assert heap.virtual_time("a", 0.0) == heap.virtual_time("a", 100.0) == 8.0


def test_a_look_into_the_future_changes_nothing(half: str) -> None:
    heap = made(half)
    run(heap, "a", 8.0, 0.0)
    assert heap.virtual_time("a", 1e9) == 0.0
    assert heap.virtual_time("a", 0.0) == 8.0


def test_right_after_thirty_days(half: str) -> None:
    heap = made(half)
    day = 86_400.0
    expected: dict[str, float] = {}
    now = 12_345.678
    end = now + 30 * day
    step = 0
    while now < end:
        key = f"key-{step % 50}"
        heap.push(key, key, NORMAL, now)
        assert heap.pop(now) == key
        used = 0.1 + step % 7
        heap.complete(key, used, now)
        expected = {each: debt * 2 ** (-601 / 120) for each, debt in expected.items()}
        expected[key] = expected.get(key, 0.0) + used * 2 ** (-601 / 120)
        now += 601.0
        step += 1
    for key, debt in expected.items():
        assert heap.virtual_time(key, now) == pytest.approx(debt, rel=1e-9)
    heap.check_valid()


DAY = 86_400.0


@pytest.mark.parametrize("gap", [600.0, 18 * 3_600.0, 30 * DAY, 3_650 * DAY])
def test_order_outlives_a_new_landmark(half: str, gap: float) -> None:
    heap = made(half, wait_weight=0.0)
    for number in (5, 3, 8, 1, 9, 2):
        run(heap, str(number), float(number), 0.0)
    for number in (9, 8, 5, 3, 2, 1):
        heap.push(str(number), number, NORMAL, 0.0)
    order = [heap.pop(gap) for _ in range(6)]
    heap.check_valid()
    # A month on all debts are nothing, and arrival decides.
    assert order == ([9, 8, 5, 3, 2, 1] if gap >= 30 * DAY else [1, 2, 3, 5, 8, 9])


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("failure_weight", -0.1, "failure_weight must lie in 0..1, not -0.1"),
        ("failure_weight", 1.5, "failure_weight must lie in 0..1, not 1.5"),
        ("failure_weight", nan, "failure_weight must lie in 0..1, not nan"),
        ("failure_weight", "0.3", "failure_weight must be a float, not str"),
        ("max_wait", 0.0, "max_wait must be finite seconds above 0, not 0.0"),
        ("max_wait", inf, "max_wait must be finite seconds above 0, not inf"),
        ("max_wait", nan, "max_wait must be finite seconds above 0, not nan"),
        ("wait_weight", -1, "wait_weight must be finite seconds of at least 0, not -1.0"),
        ("wait_weight", 10**400, "wait_weight must be finite seconds of at least 0, not inf"),
        ("cache_size", 0, "cache_size must lie in 1..2**63 - 1, not 0"),
        ("cache_size", 2**63, "cache_size must lie in 1..2**63 - 1, not 9223372036854775808"),
        ("cache_size", 8192.0, "cache_size must be an int, not float"),
        ("cache_size", True, "cache_size must be an int, not bool"),
        ("half_life", 0, "half_life must be seconds above 0, not 0.0"),
        ("half_life", nan, "half_life must be seconds above 0, not nan"),
        ("half_life", None, "half_life must be a float, not NoneType"),
    ],
)
def test_parameters_are_checked(half: str, name: str, value: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        made(half, **{name: value})
    assert str(refused.value) == f"VirtualTimeHeap: {error}"


@pytest.mark.parametrize("given", [{}, {**DEFAULTS, "size": 1}])
def test_parameters_are_all_given_by_name(half: str, given: dict[str, Any]) -> None:
    cls = type(made(half))
    with pytest.raises(TypeError, match=r"checked_parameters\(\)"):
        cls(**given)
    with pytest.raises(TypeError, match=r"checked_parameters\(\)"):
        cls(0.3, 120.0, 200.0, 8192, 120.0)
