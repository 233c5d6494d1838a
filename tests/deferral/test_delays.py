"""How long a deferred event waits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosody.deferral.delays import delay_s, timer_second
from prosody.model.times import LAST_SECOND

chances = st.floats(0.0, 1.0, exclude_max=True)


bases = st.just(0.0) | st.floats(1e-6, 1e6)


@given(st.integers(1, 10_000), bases, st.floats(0.0, 1e6), chances)
def test_in_bounds(failures: int, base_s: float, more_s: float, random: float) -> None:
    max_s = base_s + more_s
    bound = min(base_s * 2.0 ** min(failures - 1, 500), max_s)
    wait_s = delay_s(failures, base_s, max_s, random)
    assert bound / 2 <= wait_s <= bound
    assert wait_s > 0.0 or base_s == 0.0


@pytest.mark.parametrize(
    ("failures", "least", "most"), [(1, 0.5, 1.0), (2, 1.0, 2.0), (17, 32_768, 65_536)]
)
def test_it_doubles(failures: int, least: float, most: float) -> None:
    assert delay_s(failures, 1.0, 86_400.0, 0.0) == most
    assert delay_s(failures, 1.0, 86_400.0, math.nextafter(1.0, 0.0)) == pytest.approx(least)


@pytest.mark.parametrize("failures", [18, 100, 10**9])
def test_never_longer_than_the_most(failures: int) -> None:
    assert delay_s(failures, 1.0, 86_400.0, 0.0) == 86_400.0


@given(st.floats(0.0, LAST_SECOND - 1), st.floats(0.0, 1e5))
def test_a_timer_is_never_early_and_less_than_a_second_late(wall_s: float, wait_s: float) -> None:
    second = timer_second(wall_s, wait_s)
    assert wall_s + wait_s <= second <= wall_s + wait_s + 1 or second == LAST_SECOND
