"""A test of the simulation: with one rule of the durable parts switched off, its oracle finds a fault."""

from __future__ import annotations

import itertools

import pytest

from tests.simulation.durable.mutants import MUTANTS
from tests.simulation.durable.run import simulate

SEEDS = 40
"""So many seeds of the list are tried, after those that are known to show it."""

FOUND_BY: dict[str, tuple[int, ...]] = {
    "a cancel is forgotten after a restart": (25, 34),
    "the deferred row is written before its timer": (51,),
    "a failed advance runs the handler again": (10_033, 158),
    "what was handled in place comes again": (10_037, 10_045),
    "a deferred message does not wait for its own record": (146, 95),
}
"""Seeds to try first."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_rule_switched_off_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off, kind = MUTANTS[name]
    switch_off(monkeypatch)
    for seed in itertools.chain(FOUND_BY.get(name, ()), range(SEEDS)):
        faults = simulate(seed).faults
        if any(fault.partition(" ")[2].startswith(kind) for fault in faults):
            return
    pytest.fail(f"no seed shows that {name}")
