"""Deferral as a whole: any order of messages, timers, failures, faults of the store, crashes, handovers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.deferral.world import CALLS, KEYS, SCRIPTS, Plan, plan_of, play
from tests.support import run_virtual

SEEDS = 150

keys = st.sampled_from(KEYS)
scripts = st.sampled_from(SCRIPTS)
sends = st.tuples(st.just("send"), keys, scripts)
ticks = st.tuples(st.just("tick"), st.sampled_from((0.0, 0.1, 1.0, 2.5, 9.0)))
steps: st.SearchStrategy[Any] = st.one_of(
    sends,
    sends,
    ticks,
    ticks,
    st.tuples(st.just("timer"), keys, st.sampled_from((-3, 1, 4)), scripts),
    st.tuples(
        st.just("fault"),
        st.sampled_from(CALLS),
        st.sampled_from(("before", "after")),
        st.integers(1, 4),
    ),
    st.tuples(st.just("outage"), st.sampled_from((1.0, 20.0))),
    st.tuples(st.just("strike"), keys),
    st.tuples(st.sampled_from(("crash", "handover"))),
)
plans = st.builds(
    Plan,
    st.lists(steps, max_size=40).map(tuple),
    enabled=st.sampled_from((True, True, False)),
    threshold=st.sampled_from((0.9, 0.9, 0.0)),
    cache_size=st.sampled_from((1, 2, 8)),
    seed=st.integers(0, 1000),
)


@given(plans)
def test_every_rule_holds(plan: Plan) -> None:
    run_virtual(play(plan))


@pytest.mark.parametrize("part", range(3))
def test_every_rule_holds_by_seeds(part: int) -> None:
    for seed in range(part, SEEDS, 3):
        run_virtual(play(plan_of(seed)))
