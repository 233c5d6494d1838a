"""The fixed list of seeds: in none of them does the oracle find a fault. See ``oracle.py``.

A failing seed is replayed alone by the command that its failure prints.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation.run import simulate

SEEDS = range(300)
LAST_EVENTS = 80


@pytest.mark.parametrize("seed", SEEDS)
def test_no_fault(seed: int) -> None:
    verdict = simulate(seed)
    if verdict.faults:
        pytest.fail(
            "\n".join(
                (
                    verdict.history.text(LAST_EVENTS),
                    *verdict.faults,
                    f"replay with: python -m tests.simulation {seed}",
                )
            ),
            pytrace=False,
        )


def test_the_seeds_put_everything_to_the_test() -> None:
    """What never happens is never judged."""
    happened: Counter[str] = Counter()
    duplicates = 0
    for seed in SEEDS[:80]:
        verdict = simulate(seed)
        duplicates += verdict.duplicates
        happened.update(event.what for event in verdict.history)
        happened.update(e.note for e in verdict.history if e.what == "end")
        happened.update(f"{e.note} failed" for e in verdict.history if e.what == "failed")
        happened["begun by a zombie"] += sum(
            not e.held for e in verdict.history if e.what == "start"
        )
        happened["noted ahead"] += sum(bool(e.note) for e in verdict.history if e.what == "commit")
    for what in (
        "crash", "stop", "cont", "deaf", "hears", "expelled", "lost", "revoked", "leave", "failed",
        "refused", "outage", "restored", "unsettled", "settled", "added", "retention", "not yet",
        "dead", "success", "transient", "permanent", "stopped", "begun by a zombie", "noted ahead",
        "start failed", "poll failed", "commit failed", "reply failed", "send failed",
    ):  # fmt: skip
        assert happened[what] >= 3, f"{what!r} happened {happened[what]} times: {happened}"
    assert duplicates > 50, "crashes make duplicates"


def test_graceful_runs_repeat_nothing() -> None:
    """Joins, leaves, restarts, added partitions and all kinds of handlers; no crash, no failing call."""
    verdicts = [simulate(seed) for seed in SEEDS[:100] if seed % 4 == 0]
    assert all(verdict.plan.graceful for verdict in verdicts)
    assert sum(verdict.duplicates for verdict in verdicts) == 0
    assert sum(event.what == "revoked" for v in verdicts for event in v.history) > 50


DIGESTS = """
import hashlib
from tests.simulation.run import simulate
print(hashlib.sha256("".join(simulate(s).history.digest() for s in range(20)).encode()).hexdigest())
"""


def test_a_seed_gives_the_same_history_every_time() -> None:
    """To the byte: in this process again and again, and in others with other hashes."""
    once, again = (
        hashlib.sha256("".join(simulate(s).history.digest() for s in range(20)).encode())
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
