"""A test of the simulation: with one rule of the library switched off, its oracle finds a fault."""

from __future__ import annotations

import itertools

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.run import simulate

SEEDS = 60
"""So many seeds of the list are tried; most mutants show in the first few."""

FOUND_BY: dict[str, tuple[int, ...]] = {
    "the last commit is not repeated": (120,),
    "what the note said is not passed on": (72,),
    "a run cut short is done": (30, 33),
}
"""Seeds to try first, for the rules that few seeds put to the test."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_rule_switched_off_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off, kind = MUTANTS[name]
    switch_off(monkeypatch)
    for seed in itertools.chain(FOUND_BY.get(name, ()), range(SEEDS)):
        faults = simulate(seed).faults
        if any(fault.partition(" ")[2].startswith(kind) for fault in faults):
            return
    pytest.fail(f"no seed shows that {name}")
