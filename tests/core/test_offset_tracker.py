"""The offset tracker: both halves against the naive model, then memory, which a model cannot show."""

from __future__ import annotations

import gc
import random
import tracemalloc
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.core.halves import core_class
from tests.core.naive_models import NaiveOffsetTracker
from tests.core.side_by_side import SideBySide


class IntOfItsOwn(int):
    """An int by inheritance only."""


MAX_OFFSET = 2**63 - 1
NOW = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**9), 10**9)
STEP = st.sampled_from([1, 1, 1, 1, 2, 3, 16, 64, 1_000, 46_368, 2**32, 2**40])
NOT_INTS = [True, False, 1.0, "5", None, b"5", IntOfItsOwn(5)]
OUT_OF_RANGE = [-1, -(2**63), -(2**63) - 1, -(10**400), MAX_OFFSET + 1, 2**64, 2**70, 10**400]
NO_OFFSET = st.sampled_from([*NOT_INTS, *OUT_OF_RANGE])
NOT_FINITE = [float("nan"), float("inf"), -float("inf"), 10**400, -(10**400)]
MAX_LENGTH = st.integers(0, 40) | st.sampled_from([200, 4_096, 32_768, 10**6, 2**63, 10**400])
NO_LENGTH = st.sampled_from([*NOT_INTS, -1, -(2**63), -(2**64), -(10**400)])
NO_TIME = st.sampled_from([*NOT_FINITE, True, "1.0", None, Decimal("1.5"), IntOfItsOwn(5)])


class OffsetTrackerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.naive = NaiveOffsetTracker()
        self.trackers = SideBySide(
            "OffsetTracker",
            naive=self.naive,
            cython=core_class("cython", "OffsetTracker")(),
            python=core_class("python", "OffsetTracker")(),
        )
        self.promised: int | None = None

    def call(self, method: str, *arguments: Any) -> None:
        before = self.naive.committable
        self.trackers.call(method, *arguments)
        after = self.naive.committable
        assert before is None or (after is not None and after >= before), "it regressed"
        self.trackers.call("oldest")
        if method == "admit":
            self.promised = None
        elif self.promised is not None:
            needed = len(self.naive.encode_finished(10**9))
            assert needed <= self.promised, "it outgrew what was promised"

    @property
    def last(self) -> int:
        return -1 if self.naive.last_admitted is None else self.naive.last_admitted

    @rule(step=STEP, now=NOW)
    def admit(self, step: int, now: float) -> None:
        self.call("admit", self.last + step, now)

    @rule(count=st.integers(2, 40), step=STEP, now=NOW)
    def admit_many(self, count: int, step: int, now: float) -> None:
        for number in range(count):
            self.trackers.answer("admit", self.last + step, now + number)
        self.promised = None
        self.trackers.call("oldest")

    @rule(back=st.integers(0, 70), now=NOW | NO_TIME)
    def admit_again_or_late(self, back: int, now: Any) -> None:
        self.call("admit", self.last - back, now)

    @rule(offset=st.sampled_from([0, MAX_OFFSET - 1, MAX_OFFSET]), now=NOW)
    def admit_at_the_edge(self, offset: int, now: float) -> None:
        # Once there, nothing more can be admitted: not too soon, or the run is over.
        if offset == 0 or len(self.naive.admitted) > 20:
            self.call("admit", offset, now)

    @rule(offset=NO_OFFSET, now=NOW | NO_TIME)
    def admit_no_offset(self, offset: Any, now: Any) -> None:
        self.call("admit", offset, now)

    @rule(now=NO_TIME)
    def admit_at_no_time(self, now: Any) -> None:
        self.call("admit", self.last + 1, now)

    @precondition(lambda self: self.naive.outstanding)
    @rule(index=st.integers(0, 1_000))
    def complete(self, index: int) -> None:
        unfinished = self.naive.unfinished
        self.call("complete", unfinished[index % len(unfinished)])

    @precondition(lambda self: self.naive.outstanding)
    @rule()
    def complete_the_head(self) -> None:
        self.call("complete", self.naive.unfinished[0])

    @precondition(lambda self: self.naive.outstanding)
    @rule(chance=st.randoms(use_true_random=False), keep=st.integers(0, 3))
    def complete_nearly_all(self, chance: random.Random, keep: int) -> None:
        unfinished = list(self.naive.unfinished)
        chance.shuffle(unfinished)
        for offset in unfinished[keep:]:
            self.trackers.answer("complete", offset)
            self.trackers.answer("oldest")
        self.trackers.compare()
        self.call("encode_finished", 200)

    @precondition(lambda self: self.naive.finished)
    @rule(index=st.integers(0, 1_000))
    def complete_again(self, index: int) -> None:
        finished = self.naive.finished
        self.call("complete", finished[index % len(finished)])

    @rule(distance=st.integers(-70, 70))
    def complete_near_the_end(self, distance: int) -> None:
        self.call("complete", self.last + distance)

    @rule(offset=NO_OFFSET)
    def complete_no_offset(self, offset: Any) -> None:
        self.call("complete", offset)

    @rule(max_length=MAX_LENGTH)
    def encode(self, max_length: int) -> None:
        self.call("encode_finished", max_length)
        assert len(self.trackers.answer("encode_finished", max_length)) <= max_length

    @rule(max_length=NO_LENGTH)
    def encode_no_length(self, max_length: Any) -> None:
        self.call("encode_finished", max_length)

    @rule()
    def ask_for_the_length(self) -> None:
        before = self.promised
        self.promised = self.trackers.call("encoded_length")
        assert before is None or self.promised <= before, "it rose without an admission"
        self.call("encode_finished", 10**9)


TestOffsetTrackerAgainstModel = OffsetTrackerMachine.TestCase
TestOffsetTrackerAgainstModel.settings = settings(deadline=None)
# The long profile, and shrinking a failure, take longer than a test otherwise may.
TestOffsetTrackerAgainstModel.pytestmark = [pytest.mark.timeout(3_600)]


def test_completions_out_of_order_become_one_committable_offset(offset_tracker: Any) -> None:
    assert offset_tracker.committable is None
    for offset, now in [(5, 1.0), (6, 2.0), (9, 3.0)]:  # 7 and 8 are gone from the log
        offset_tracker.admit(offset, now)
    assert offset_tracker.complete(6) is False
    assert (offset_tracker.committable, offset_tracker.finished_ahead) == (5, 1)
    assert offset_tracker.oldest() == (5, 1.0)
    assert offset_tracker.complete(5) is True
    assert (offset_tracker.committable, offset_tracker.finished_ahead) == (9, 0)
    assert offset_tracker.complete(9) is True
    assert (offset_tracker.committable, offset_tracker.oldest()) == (10, None)
    offset_tracker.admit(20, 0.5)
    assert (offset_tracker.committable, offset_tracker.last_admitted) == (20, 20)


def test_the_last_offset_there_can_be(offset_tracker: Any) -> None:
    offset_tracker.admit(MAX_OFFSET, 0.0)
    assert offset_tracker.complete(MAX_OFFSET) is True
    assert offset_tracker.committable == MAX_OFFSET + 1
    with pytest.raises(ValueError, match="offset must lie between 0 and 9223372036854775807"):
        offset_tracker.admit(MAX_OFFSET + 1, 0.0)


def test_a_number_python_would_not_write_out_is_refused_with_a_text(offset_tracker: Any) -> None:
    huge = 10**5_000
    with pytest.raises(ValueError, match="9223372036854775807, not an int of 16610 bits"):
        offset_tracker.admit(huge, 0.0)
    with pytest.raises(ValueError, match="offset an int of 16610 bits is not outstanding"):
        offset_tracker.complete(-huge)


@pytest.mark.parametrize("step", [1, 2, 3, 64, 1_000, 46_368, 1_134_903_170, 2**40])
def test_many_outstanding_at_any_stride(offset_tracker: Any, step: int) -> None:
    offsets = range(0, 5_000 * step, step)
    for number, offset in enumerate(offsets):
        offset_tracker.admit(offset, float(number))
    shuffled = list(offsets[1:])
    random.Random(step).shuffle(shuffled)
    assert not any(map(offset_tracker.complete, shuffled))
    offset_tracker.check_valid()
    assert (offset_tracker.finished_ahead, offset_tracker.oldest()) == (4_999, (0, 0.0))
    assert offset_tracker.complete(0) is True
    assert offset_tracker.committable == offsets[-1] + 1


def traced_growth(work: Any) -> int:
    """Bytes still held after ``work`` that were not before."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_a_million_finished_behind_one_blocked_head_cost_next_to_nothing(
    offset_tracker: Any,
) -> None:
    def work() -> None:
        admit, complete = offset_tracker.admit, offset_tracker.complete
        admit(0, 1.5)
        for offset in range(1, 1_000_001):
            admit(offset, 2.5)
            complete(offset)

    held = traced_growth(work)
    assert offset_tracker.finished_ahead == 1_000_000
    assert (offset_tracker.committable, offset_tracker.oldest()) == (0, (0, 1.5))
    assert held < 10_000, f"{held * 8 / 1e6} bits for each finished offset"
    assert offset_tracker.complete(0) is True
    assert offset_tracker.committable == 1_000_001


def test_memory_of_a_burst_is_given_back(offset_tracker: Any) -> None:
    def work() -> None:
        for offset in range(50_000):
            offset_tracker.admit(offset, 0.0)
        for offset in range(50_000):
            offset_tracker.complete(offset)
        # The pure half gives back when its dict is next rebuilt, after so many admissions.
        for offset in range(50_000, 200_000):
            offset_tracker.admit(offset, 0.0)
            offset_tracker.complete(offset)

    held = traced_growth(work)
    offset_tracker.check_valid()
    assert held < 10_000, f"{held} bytes held for nothing outstanding"
