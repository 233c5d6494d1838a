"""A test of the tests: each rule of the scheduler, once broken, makes a property of fairness fail."""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import pytest

from tests.core.vtime_mutant import mutant
from tests.fairness import properties
from tests.fairness.closed_loop import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable

PROPERTIES: dict[str, Callable[[Any], float]] = {
    "pairs": partial(properties.pairwise_gap, slots=1, kind="exponential", **PLAIN),
    "pairs in many slots": partial(properties.pairwise_gap, slots=16, kind="exponential", **PLAIN),
    "pairs with boost": partial(properties.pairwise_gap, slots=4, kind="pareto", half_life=inf),
    "long against short": partial(properties.long_against_short, until=600.0, wait_weight=0.0),
    "classes": partial(properties.class_shares, slots=4, kind="exponential"),
    "classes with entries given back": properties.shares_with_entries_given_back,
    "starvation": properties.starvation,
    "most virtual time": properties.virtual_time_bound,
    "flooded cache": properties.flooded_cache,
    "Jain index": properties.jain_index,
}

LINEAR_BEST = "least = debt - wait_weight * wait"
LINEAR_STEP = "boost = wait_weight * wait"
LINEAR_LAST = "return debt * decay - wait_weight * wait"

# name: the property that must fail, the part, the edits
MUTANTS: dict[str, tuple[str, str, list[tuple[str, str]]]] = {
    "charge dropped": (
        "pairs",
        "vtime_heap_py",
        [("state.debt += state", "state.debt += 0.0 * state")],
    ),
    # What the reference does when the report of a run comes after the next push of its key.
    "charge too late": (
        "pairs",
        "vtime_heap_py",
        [
            ("state.debt += state.account", "state.charge = state.account"),
            (
                "        state.charge = chosen",
                "        state.debt += state.charge\n        state.charge = chosen",
            ),
            ("if state.debt == 0.0:", "if state.debt + state.charge == 0.0:"),
        ],
    ),
    "charge of the estimate": (
        "pairs",
        "class_account_py",
        [("charge = used * growth", "charge = self.mean_run * growth")],
    ),
    "virtual time ignored": (
        "pairs in many slots",
        "staircase_py",
        [("        chosen = last\n", "        return 0\n")],
    ),
    "boost dropped": (
        "starvation",
        "vtime_heap_py",
        [
            (
                "ClassAccount(given.normal_weight, given.max_wait, given.wait_weight)",
                "ClassAccount(given.normal_weight, given.max_wait, 0.0)",
            )
        ],
    ),
    "boost linear in the wait": (
        "pairs with boost",
        "staircase_py",
        [
            ("least = debt - wait_weight * (wait * wait)", LINEAR_BEST),
            ("boost = wait_weight * (wait * wait)", LINEAR_STEP),
            ("return debt * decay - wait_weight * (wait * wait)", LINEAR_LAST),
        ],
    ),
    "decay dropped": (
        "most virtual time",
        "vtime_heap_py",
        [("self._set_decay(given.half_life)", "self._set_decay(inf)")],
    ),
    "decay ten times as fast": (
        "long against short",
        "vtime_heap_py",
        [("self._set_decay(given.half_life)", "self._set_decay(0.1 * given.half_life)")],
    ),
    "class split ignored": (
        "classes",
        "vtime_heap_py",
        [("failure.score(decay) < chosen.score(decay)", "False")],
    ),
    "class weights ignored": (
        "classes",
        "class_account_py",
        [("self.time(decay) / self.weight", "self.time(decay)")],
    ),
    "estimates not given back": (
        "classes with entries given back",
        "class_account_py",
        [("left = self.estimated - charge", "left = self.estimated")],
    ),
    "eviction by age": (
        "flooded cache",
        "idle_keys_py",
        [
            (
                "heappush(self.heap, (state.debt, state.rested, state))",
                "heappush(self.heap, (float(state.rested), state.rested, state))",
            ),
            ("if forgotten.debt > state.debt:", "if False:"),
        ],
    ),
    "debts forgotten at rest": (
        "flooded cache",
        "vtime_heap_py",
        [("if state.debt == 0.0:", "if True:"), (" and state.debt != 0.0:", " and False:")],
    ),
}


@pytest.mark.parametrize("name", list(PROPERTIES))
def test_the_code_as_it_is_has_every_property(name: str) -> None:
    as_it_is = mutant("vtime_heap_py")
    assert PROPERTIES[name](as_it_is) <= 1 + 1e-9


@pytest.mark.parametrize("mutation", list(MUTANTS))
def test_a_broken_rule_is_seen(mutation: str) -> None:
    name, part, edits = MUTANTS[mutation]
    assert PROPERTIES[name](mutant(part, *edits)) > 1 + 1e-9
