"""Fairness as properties, simulated: ``properties.py`` says what each figure is; it is at most 1.

The half is the one that the library has picked: a run of the tests with each half runs these with
each half.
"""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from prosody._core import VirtualTimeHeap
from tests.fairness import properties
from tests.fairness.closed_loop import PLAIN

# Sums of a thousand lengths of time.
ROUNDING = 1e-9

each_handler = pytest.mark.parametrize("kind", properties.HANDLERS)
each_number_of_slots = pytest.mark.parametrize("slots", properties.SLOTS)
each_rule = pytest.mark.parametrize(
    "given",
    [PLAIN, {"half_life": inf}, {"wait_weight": 0.0}, {}],
    ids=["virtual time alone", "boost, no decay", "decay, no boost", "decay and boost"],
)


@each_handler
@each_number_of_slots
@each_rule
def test_pairs_of_keys(kind: str, slots: int, given: dict[str, Any]) -> None:
    assert properties.pairwise_gap(VirtualTimeHeap, slots=slots, kind=kind, **given) <= 1 + ROUNDING


@each_handler
def test_the_bound_on_pairs_is_tight(kind: str) -> None:
    assert properties.pairwise_gap(VirtualTimeHeap, slots=1, kind=kind, **PLAIN) > 0.99


@each_rule
@pytest.mark.parametrize("until", [600.0, 3_600.0])
def test_long_runs_against_short_ones(given: dict[str, Any], until: float) -> None:
    assert properties.long_against_short(VirtualTimeHeap, until=until, **given) <= 1 + ROUNDING


@each_handler
@each_number_of_slots
@pytest.mark.parametrize("given_back", [0.0, 0.5])
def test_classes_share(kind: str, slots: int, given_back: float) -> None:
    worst = properties.class_shares(VirtualTimeHeap, slots=slots, kind=kind, given_back=given_back)
    assert worst <= 1 + ROUNDING


@pytest.mark.parametrize("slots", [1, 4, 16])
@pytest.mark.parametrize("debt", [173.1, 100.0, 1.0])
def test_nothing_starves_under_a_flood_of_fresh_keys(slots: int, debt: float) -> None:
    assert properties.starvation(VirtualTimeHeap, slots=slots, debt=debt) <= 1


@pytest.mark.parametrize(
    "name",
    ["failure_storm", "virtual_time_bound", "flooded_cache", "jain_index", "quiet_keys"],
)
def test_a_goal_is_met(name: str) -> None:
    assert getattr(properties, name)(VirtualTimeHeap) <= 1
