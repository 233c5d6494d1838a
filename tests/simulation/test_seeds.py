"""The fixed list of seeds: in none of them does the oracle find a fault. See ``oracle.py``.

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
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.simulation.mutants import one_too_high
from tests.simulation.plan import CALLS
from tests.simulation.run import Verdict, simulate

SEEDS = range(300)
SAME_SEEDS = range(12)
LAST_EVENTS = 80


class Summary(NamedTuple):
    """What the tests below ask of a seed."""

    failed: Verdict | None
    """Everything, when there are faults; else the history may be forgotten."""
    graceful: bool
    duplicates: int
    happened: Counter[str]


@functools.cache
def summary_of(seed: int) -> Summary:
    """Runs a seed once for all that ask, as it is the same each time."""
    verdict = simulate(seed)
    history = verdict.history
    happened = Counter(event.what for event in history)
    happened.update(e.note for e in history if e.what == "end")
    happened.update(f"{e.note} failed" for e in history if e.what == "failed")
    happened["begun by a zombie"] = sum(not e.held for e in history if e.what == "start")
    happened["noted ahead"] = sum(bool(e.note) for e in history if e.what == "commit")
    failed = verdict if verdict.faults else None
    return Summary(failed, verdict.plan.graceful, verdict.duplicates, happened)


def told(seed: int, verdict: Verdict, folder: Path, module: str = "tests.simulation") -> str:
    """What is said of a seed with faults."""
    path = folder / f"seed-{seed}.txt"
    path.write_text(verdict.text())
    return "\n".join(
        (
            f"the last of {len(verdict.history)} events:",
            verdict.history.text(LAST_EVENTS),
            *verdict.faults,
            f"all events: {path}",
            f"replay with: python -m {module} {seed}",
        )
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_no_fault(seed: int, tmp_path: Path) -> None:
    failed = summary_of(seed).failed
    if failed is not None:
        pytest.fail(told(seed, failed, tmp_path), pytrace=False)


def test_a_failing_seed_leaves_its_whole_history(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one_too_high(monkeypatch)
    verdict = simulate(0)
    text = told(0, verdict, tmp_path)
    assert "replay with: python -m tests.simulation 0" in text
    assert all(fault in text for fault in verdict.faults)
    written = (tmp_path / "seed-0.txt").read_text()
    assert str(tmp_path / "seed-0.txt") in text
    assert written.startswith("Plan(seed=0")
    assert len(verdict.history) > LAST_EVENTS
    assert all(str(event) in written for event in verdict.history)


def test_the_seeds_put_everything_to_the_test() -> None:
    """What never happens is never judged."""
    happened: Counter[str] = Counter()
    duplicates = 0
    for seed in SEEDS[:80]:
        summary = summary_of(seed)
        duplicates += summary.duplicates
        happened.update(summary.happened)
    for what in (
        "crash", "stop", "cont", "deaf", "hears", "expelled", "lost", "revoked", "leave", "failed",
        "refused", "outage", "restored", "unsettled", "settled", "added", "retention", "not yet",
        "dead", "success", "transient", "permanent", "stopped", "begun by a zombie", "noted ahead",
        *(f"{call} failed" for call in CALLS),
    ):  # fmt: skip
        assert happened[what] >= 3, f"{what!r} happened {happened[what]} times: {happened}"
    assert duplicates > 50, "crashes make duplicates"


def test_graceful_runs_repeat_nothing() -> None:
    """Joins, leaves, restarts, added partitions and all kinds of handlers; no crash, no failing call."""
    summaries = [summary_of(seed) for seed in SEEDS[:100] if seed % 4 == 0]
    assert all(summary.graceful for summary in summaries)
    assert sum(summary.duplicates for summary in summaries) == 0
    assert sum(summary.happened["revoked"] for summary in summaries) > 50


DIGESTS = f"""
import hashlib
from tests.simulation.run import simulate
print(hashlib.sha256("".join(simulate(s).history.digest() for s in {SAME_SEEDS}).encode()).hexdigest())
"""


def test_a_seed_gives_the_same_history_every_time() -> None:
    """To the byte: in this process again and again, and in others with other hashes."""
    once, again = (
        hashlib.sha256("".join(simulate(s).history.digest() for s in SAME_SEEDS).encode())
        for _ in range(2)
    )
    assert once.hexdigest() == again.hexdigest()
    for hash_seed in ("0", "1"):
        other = subprocess.run(
            [sys.executable, "-c", DIGESTS],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        assert other.stdout.strip() == once.hexdigest()
