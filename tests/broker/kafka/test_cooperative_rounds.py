"""Groups of many members through many rounds with faults; and the same with rules switched off.

A mutant is the code with one place changed. The seeds are the same for all; the code as it is plays all
of them without a fault.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

import prosody.broker.balance as balance
from prosody.broker.kafka import cooperative
from tests.broker.kafka.rounds_play import Play, first_fault

if TYPE_CHECKING:
    from tests.broker.kafka.rounds import Decide

SEEDS = 120

MUTANTS: dict[str, tuple[ModuleType, str, str]] = {
    "the ghost of a member that came back keeps its claims": (
        cooperative,
        "    living = {member for _, member in newest.values()}",
        "    living = set(applicants)",
    ),
    "the ghost lives and the member does not": (
        cooperative,
        "= max(newest.get(claim.process, mine), mine)",
        "= min(newest.get(claim.process, mine), mine)",
    ),
    "the oldest claim wins": (cooperative, "(-item[1].generation,", "(item[1].generation,"),
    "claims are not compared": (cooperative, "(-item[1].generation, item[0])", "item[0]"),
    "a leaving member is given new partitions": (cooperative, "if not claim.leaving]", "]"),
    "a claimed partition is handed over in the first round": (
        cooperative,
        "owner = owners.setdefault(tp, taker)",
        "owner = owners[tp] = taker",
    ),
    "a claimed partition is assigned to both": (
        cooperative,
        "            release[owner].add(tp)",
        "            release[owner].add(tp)\n            assigned[taker].add(tp)",
    ),
    "what should move is not named": (cooperative, "release[owner].add(tp)", "pass"),
    "what should move is taken at once": (
        cooperative,
        "            release[owner].add(tp)",
        "            assigned[owner].remove(tp)",
    ),
    "claims of unknown topics are void": (
        cooperative,
        "    for tp, owner in owners.items():\n",
        "    owners = {tp: m for tp, m in owners.items() if tp.topic in known}\n"
        "    for tp, owner in owners.items():\n",
    ),
    "claims of topics not subscribed to count": (cooperative, "if tp.topic in topics:", "if True:"),
    "claims beyond the leader's count are void": (
        cooperative,
        "    for tp, owner in owners.items():\n",
        "    owners = {tp: m for tp, m in owners.items() if tp.partition < known.get(tp.topic, 99)}\n"
        "    for tp, owner in owners.items():\n",
    ),
    "a member of another version is given partitions": (
        cooperative,
        "sorted(claims.items()) if not claim.leaving]",
        "sorted(claims.items()) if not claim.leaving] + "
        "[m for m, a in applicants.items() if a.claim is None]",
    ),
    "the members' order decides": (
        cooperative,
        "for member, claim in sorted(claims.items()) if",
        "for member, claim in claims.items() if",
    ),
    "nothing is kept for balance's sake": (cooperative, "subscribers, owners, {})", "subscribers, {}, {})"),
    "balance makes no way for wishes": (
        balance,
        "and not self._take_one(c, n)",
        "and True",
    ),
    "the shares are not even": (balance, "key=lambda n: (self._load[n], n)", "key=lambda n: n"),
    "nobody passes on": (
        balance,
        "if c not in seen and self._share[c][n] > self._promised[c][n]:",
        "if False:",
    ),
}  # fmt: skip


def mutated(module: ModuleType, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> Decide:
    """``share_out`` with one change in a module."""
    copies: dict[str, Any] = {}
    for original in (balance, cooperative):
        source = Path(str(original.__file__)).read_text()
        if original is module:
            assert source.count(old) == 1, f"{source.count(old)} places for the change: {old!r}"
            source = source.replace(old, new)
        copy = ModuleType(original.__name__)
        monkeypatch.setitem(sys.modules, original.__name__, copy)
        exec(compile(source, f"mutant of {original.__name__}", "exec"), vars(copy))
        copies[original.__name__] = copy
    # The model reads the results with the original classes; theirs are tuples all the same.
    decide: Decide = copies[cooperative.__name__].share_out
    return decide


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_group_survives_its_members(seed: int) -> None:
    Play(cooperative.share_out, seed).run()


def test_a_fault_tells_its_whole_history_and_how_to_replay_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decide = mutated(*MUTANTS["what should move is taken at once"], monkeypatch)
    found = first_fault(decide, SEEDS)
    assert found is not None
    seed = int(found.split(":")[0].removeprefix("seed "))
    with pytest.raises(Exception) as fault:  # noqa: PT011  # a mutant may show itself in any way
        Play(decide, seed).run()
    (note,) = fault.value.__notes__
    first, *_, last = note.splitlines()
    assert "starts, wants" in first
    assert "round 1 the leader knows" in note
    assert last == f"replay with: python -m tests.broker.kafka.rounds_play {seed}"


@pytest.mark.parametrize("module", [balance, cooperative], ids=lambda module: module.__name__)
def test_a_module_put_in_unchanged_shows_no_fault(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a mutant shows, it shows because of its change, not because it was put in."""
    unchanged = "from __future__ import annotations"
    assert first_fault(mutated(module, unchanged, unchanged, monkeypatch), 20) is None


@pytest.mark.parametrize("mutant", list(MUTANTS))
def test_mutant_is_seen(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decide = mutated(*MUTANTS[mutant], monkeypatch)
    assert first_fault(decide, SEEDS) is not None, f"no seed shows that {mutant}"
