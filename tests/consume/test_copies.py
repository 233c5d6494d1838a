"""Random copies, faults of the store, revokes and restarts; what must hold is written in ``copies.py``."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.consume.copies import ENDS, Plan, play
from tests.mutant import mutant
from tests.support import DeadlockError, run_virtual

pytestmark = pytest.mark.usefixtures("no_logs")

CALLS = ["dedup.seen", "dedup.record"]
MODES = ["well", "hold", "hold", "fail", "fail after"]


def steps(faults: bool) -> st.SearchStrategy[tuple[Any, ...]]:
    small = st.integers(0, 5)
    send = st.tuples(
        st.just("send"), st.sampled_from("ab"), st.sampled_from(["x", "x", "y", "z", None])
    )
    end = st.tuples(st.just("end"), small, st.sampled_from([*ENDS, "success", "success"]))
    kinds = [
        send, send, send, end, end, end,
        st.just(("commit",)),
        st.tuples(st.just("revoke"), st.sampled_from([*ENDS, "stay"])),
        st.sampled_from([("lose",), ("restart",)]),
    ]  # fmt: skip
    if faults:
        kinds += [
            st.tuples(st.just("store"), st.sampled_from(CALLS), st.sampled_from(MODES)),
            st.tuples(st.just("let"), small),
            st.tuples(st.just("tick"), st.sampled_from([1.0, 5.0, 20.0])),
        ]
    return st.one_of(kinds)


def plans(faults: bool) -> st.SearchStrategy[Plan]:
    return st.builds(
        Plan,
        cache_size=st.sampled_from([1, 1, 2, 3, 100]),
        permits=st.integers(1, 3),
        max_uncommitted=st.sampled_from([1, 2, 4, 8]),
        in_lanes=st.booleans(),
        steps=st.lists(steps(faults), min_size=3, max_size=30).map(tuple),
    )


@pytest.mark.parametrize("faults", [False, True], ids=["store well", "store with faults"])
def test_copies_are_handled_once(faults: bool) -> None:
    @settings(max_examples=120 if faults else 60)
    @given(plans(faults))
    def check(plan: Plan) -> None:
        run_virtual(play(plan))

    check()


def plan_of(seed: int) -> Plan:
    """A plan like those above, from a seed; every second one with faults."""
    chance = random.Random(seed)
    made: list[tuple[Any, ...]] = []
    for _ in range(chance.randint(8, 30)):
        match chance.choice("ssssseeeecrlR" + "fffllt" * (seed % 2)):
            case "s":
                made.append(
                    ("send", chance.choice("ab"), chance.choice(["x", "x", "y", "z", None]))
                )
            case "e":
                ends = [*ENDS, "success", "success"]
                made.append(("end", chance.randrange(6), chance.choice(ends)))
            case "c":
                made.append(("commit",))
            case "r":
                made.append(("revoke", chance.choice([*ENDS, "stay"])))
            case "l":
                made.append(("lose",) if chance.random() < 0.5 else ("let", chance.randrange(4)))
            case "R":
                made.append(("restart",))
            case "f":
                made.append(("store", chance.choice(CALLS), chance.choice(MODES)))
            case _:
                made.append(("tick", chance.choice([1.0, 5.0, 20.0])))
    return Plan(
        cache_size=chance.choice([1, 1, 2, 3, 100]),
        permits=chance.randint(1, 3),
        max_uncommitted=chance.choice([1, 2, 4, 8]),
        in_lanes=seed % 4 < 2,
        steps=tuple(made),
    )


SEEDS = 150

MUTANTS = {
    "recorded before the handler": (
        "                    outcome = await whole(inner, run)\n",
        "                    self._finished(run, entry)\n"
        "                    outcome = await whole(inner, run)\n",
    ),
    "recorded when deferred": (
        "if outcome.kind is Kind.SUCCESS or outcome.kind is Kind.PERMANENT:",
        "if outcome.kind is not Kind.TRANSIENT:",
    ),
    "recorded when it failed transiently": (
        "if outcome.kind is Kind.SUCCESS or outcome.kind is Kind.PERMANENT:",
        "if outcome.kind is not Kind.DEFERRED:",
    ),
    "a permanent failure is not recorded": (
        "if outcome.kind is Kind.SUCCESS or outcome.kind is Kind.PERMANENT:",
        "if outcome.kind is Kind.SUCCESS:",
    ),
    "a store that cannot be read fails the message": (
        "        self._not_read(error, run)\n        return False\n",
        "        raise error\n",
    ),
    "a store that cannot be read has seen everything": (
        "        self._not_read(error, run)\n        return False\n",
        "        self._not_read(error, run)\n        return True\n",
    ),
    "the memory is not asked a second time": (
        "        if entry.finished or self.recent.knows(entry.identity):\n            return True\n",
        "",
    ),
    "the memory is asked at admission only": (
        "            if not entry.finished and not self.recent.knows(entry.identity):\n"
        "                # Of its own",
        "            if True:\n                # Of its own",
    ),
    "the offset is done before the record": ("            run.unwritten = True\n", ""),
    "nobody hears of the end of the record": ("        run.partition.written(run)\n", ""),
    "copies at the same time know nothing of each other": (
        "        entry = None if reference is None else reference()\n",
        "        entry = None\n",
    ),
    "the answer of an earlier look-up is good for ever": (
        "(entry.asked is None or entry.asked.done())",
        "entry.asked is None",
    ),
    "a shutdown does not end the wait for the store": (
        "        run.interruptible = asked  # a shutdown",
        "        # a shutdown",
    ),
    "what is passed over is not remembered": (
        "            entry.finished = True\n            self.recent.note(entry.identity)\n"
        "            self.hits += 1\n",
        "            self.hits += 1\n",
    ),
    "the memory forgets the wrong one": ("popitem(last=False)", "popitem(last=True)"),
    "the memory keeps everything": (
        "        if len(identities) > self._most:\n",
        "        if False:\n",
    ),
    "a wait holds its permit": ("        run.partition.give_back(run)\n", ""),
    "entries stay": ("        self._entries.pop(self.identity, None)\n", ""),
    "a failed look-up holds on to its run": (
        "            error.__traceback__ = None\n",
        "            pass\n",
    ),
    "a look-up outlives its runs": ("            asked.cancel()  #", "            pass  #"),
}


def first_fault(layer: Any) -> str | None:
    """What the first plan that goes wrong says; None when all go well."""
    for seed in range(SEEDS):
        try:
            run_virtual(play(plan_of(seed), layer))
        # Whatever it is, it shows.
        except (Exception, DeadlockError) as fault:
            return f"plan {seed}: {type(fault).__name__}: {fault}"
    return None


def test_the_code_as_it_is_shows_no_fault() -> None:
    module = mutant("middleware.deduplication", "_log = logging", "_log = logging")
    assert first_fault(module.Deduplication) is None


@pytest.mark.parametrize("name", list(MUTANTS))
def test_mutant_is_seen(name: str) -> None:
    module = mutant("middleware.deduplication", *MUTANTS[name])
    assert first_fault(module.Deduplication) is not None, f"no plan shows that {name}"
