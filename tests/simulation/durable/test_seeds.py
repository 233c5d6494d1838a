"""The fixed list of seeds with timers, deferral and deduplication: in none does the oracle find a fault.

A failing seed leaves its whole history in a file, and is replayed alone by the command that its failure
prints.
"""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.simulation.durable.plan import STORE_CALLS, STORMS_FROM, WAYS, DurablePlan
from tests.simulation.durable.run import simulate
from tests.simulation.test_seeds import told

if TYPE_CHECKING:
    from pathlib import Path

    from tests.simulation.run import Verdict

SEEDS = (*range(160), *range(STORMS_FROM, STORMS_FROM + 60))
SAME_SEEDS = (*range(8), STORMS_FROM)


class Summary(NamedTuple):
    """What the tests below ask of a seed."""

    failed: Verdict | None
    """Everything, when there are faults; else the history may be forgotten."""
    kind: str
    duplicates: int
    happened: Counter[str]


@functools.cache
def summary_of(seed: int) -> Summary:
    """Runs a seed once for all that ask, as it is the same each time."""
    verdict = simulate(seed)
    happened: Counter[str] = Counter()
    begun = {(e.tp, e.offset) for e in verdict.history if e.what == "start"}
    for event in verdict.history:
        happened[event.what] += 1
        if event.what in {"end", "fired", "calls", "called", "store"}:
            happened[f"{event.what} {event.note}"] += 1
        elif event.what == "produced" and event.note.startswith("message"):
            happened["passed over"] += (event.tp, event.offset) not in begun
    failed = verdict if verdict.faults else None
    assert isinstance(verdict.plan, DurablePlan)
    return Summary(failed, verdict.plan.kind, verdict.duplicates, happened)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_fault(seed: int, tmp_path: Path) -> None:
    failed = summary_of(seed).failed
    if failed is not None:
        pytest.fail(told(seed, failed, tmp_path, "tests.simulation.durable"), pytrace=False)


def test_the_seeds_put_everything_to_the_test() -> None:
    """What never happens is never judged."""
    happened: Counter[str] = Counter()
    duplicates: Counter[str] = Counter()
    for seed in SEEDS:
        summary = summary_of(seed)
        duplicates[summary.kind] += summary.duplicates
        happened.update({w: n for w, n in summary.happened.items() if " ok " not in w})
    for what in (
        "row", "unrow", "recorded", "passed over", "store outage", "crash", "stop", "revoked",
        "lost", "end success", "end transient", "end permanent", "fired success",
        "fired transient", "fired permanent", "called schedule ok", "called schedule failed",
        "called unschedule ok", "called clear ok", "called move ok", "calls scheduled",
    ):  # fmt: skip
        assert happened[what] >= 2, f"{what!r} happened {happened[what]} times: {happened}"
    for call in STORE_CALLS:
        # ``passed`` is told too seldom for a run of minutes.
        failures = sum(happened[f"store {call} {way}"] for way in (*WAYS, "down"))
        assert failures >= 5 or call == "timers.passed", f"{call} failed {failures} times"
    for way in WAYS:
        assert sum(n for what, n in happened.items() if what.endswith(f" {way}")) > 20
    assert duplicates["graceful"] == 0
    assert duplicates["crashes"] > 10, "crashes make duplicates"


DIGESTS = f"""
import hashlib
from tests.simulation.durable.run import simulate
print(hashlib.sha256("".join(simulate(s).history.digest() for s in {SAME_SEEDS}).encode()).hexdigest())
"""


def test_a_seed_gives_the_same_history_every_time() -> None:
    """To the byte, also in another process with other hashes."""
    digests = "".join(simulate(s).history.digest() for s in SAME_SEEDS)
    here = hashlib.sha256(digests.encode()).hexdigest()
    other = subprocess.run(
        [sys.executable, "-c", DIGESTS],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert other.stdout.strip() == here
