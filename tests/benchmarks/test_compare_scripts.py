"""What every rival's script counts, the environments, and processes that end without a result."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.compare import child
from benchmarks.compare import rivals as r
from benchmarks.compare.child import ChildError, environment_of, started
from benchmarks.compare.environments import Environments
from benchmarks.compare.scripts.checking import Check, Failing, peak_mib, percentile
from tools.services.guard import command_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def check(expected: int, **job: Any) -> Any:
    return Check({"expected": expected, "deadline_s": 1.0, **job})


def order(i: int, seq: int, **more: Any) -> dict[str, Any]:
    return {"i": i, "seq": seq, **more}


def handled(of: Any, *orders: tuple[str, int, int]) -> dict[str, Any]:
    for key, i, seq in orders:
        of.begin(key, order(i, seq))
        of.end(key, order(i, seq))
    found: dict[str, Any] = of.result()
    return found


# ----------------------------------------------------------------------------------- the counting


def test_nothing_wrong() -> None:
    found = handled(check(3), ("a", 0, 0), ("b", 1, 0), ("a", 2, 1))
    assert [found[f] for f in ("order_faults", "repeated", "lost")] == [0, 0, 0]
    assert found["distinct_keys"] == 2
    assert found["seconds"] > 0


def test_a_message_after_a_later_one_of_its_key() -> None:
    found = handled(check(3), ("a", 0, 0), ("a", 2, 2), ("a", 1, 1))
    assert [found[f] for f in ("order_faults", "repeated", "lost")] == [1, 0, 0]


def test_a_message_that_comes_twice() -> None:
    found = handled(check(2), ("a", 0, 0), ("a", 0, 0), ("a", 1, 1))
    assert [found[f] for f in ("order_faults", "repeated", "lost")] == [0, 1, 0]


def test_a_message_that_never_comes_is_lost_and_no_disorder() -> None:
    found = handled(check(3), ("a", 0, 0), ("a", 2, 2))
    assert [found[f] for f in ("order_faults", "repeated", "lost")] == [0, 0, 1]


async def test_two_of_a_key_at_the_same_time() -> None:
    of = check(3, delay_s=0.001)
    await asyncio.gather(
        of.handle("a", order(0, 0)), of.handle("b", order(1, 0)), of.handle("a", order(2, 1))
    )
    assert of.result()["order_faults"] == 1
    assert of.over


async def test_a_key_may_run_again_after_a_handler_was_cancelled() -> None:
    of = check(1, delay_s=60.0)
    task = asyncio.create_task(of.handle("a", order(0, 0)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    of.begin("a", order(0, 0))
    assert of.order_faults == 0


def test_failing_keys_heal_when_all_others_are_handled() -> None:
    of = check(3, failing=1)
    with pytest.raises(Failing):
        of.begin("bad", order(0, 0, fails=1))
    of.begin("good", order(1, 0))
    of.end("good", order(1, 0))
    with pytest.raises(Failing):
        of.begin("bad", order(0, 0, fails=1))
    of.begin("good", order(2, 1))
    of.end("good", order(2, 1))
    assert of.seconds is not None
    assert not of.over
    of.begin("bad", order(0, 0, fails=1))
    of.end("bad", order(0, 0, fails=1))
    found = of.result()
    assert of.over
    assert (found["healthy"], found["handled"], found["failures"], found["lost"]) == (2, 3, 2, 0)


def test_latency_counts_from_when_it_was_to_be_sent_and_not_for_the_hot_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of = check(2, live=True, hot_delay_s=0.1)
    monkeypatch.setattr("benchmarks.compare.scripts.checking.time.monotonic", lambda: 50.0)
    assert of.begin("a", order(0, 0, at=48.5)) == 0.0
    assert of.begin("hot", order(1, 0, at=1.0, hot=1)) == pytest.approx(0.1)
    assert of.latencies == [1.5]


def test_percentiles() -> None:
    hundred = list(range(1, 101))
    assert [percentile(hundred, share) for share in (0.5, 0.99, 0.999)] == [50, 99, 100]
    assert percentile([], 0.5) is None


def test_memory_is_that_of_this_process() -> None:
    assert 5 < peak_mib() < 100_000


# -------------------------------------------------------------------------------- the environments


class Pip:
    """Stands in for commands; the install fails with what is given."""

    def __init__(self, error: str = "") -> None:
        self.error = error
        self.calls: list[Sequence[str]] = []

    def __call__(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self.calls.append(command)
        if command[1:3] == ("-m", "venv"):
            home = command[-1]
            return subprocess.run(
                [sys.executable, "-c", f"import pathlib; pathlib.Path({home!r}).mkdir(parents=True)"],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
        return subprocess.CompletedProcess(command, int(bool(self.error)), "", self.error)


RIVAL = r.Rival("somebody", "consume_somebody.py", ("somebody==1.0",))


def test_an_install_that_fails_makes_a_rival_missing(tmp_path: Path) -> None:
    environments = Environments()
    error = "warning: old pip\nERROR: No matching distribution found for somebody==1.0\n"
    environments.prepare([RIVAL, r.RIVALS[r.OURS]], tmp_path, Pip(error))
    assert environments.missing == {
        "somebody": "ERROR: No matching distribution found for somebody==1.0"
    }
    assert environments.pythons == {r.OURS: sys.executable}


def test_an_environment_is_made_once_and_again_when_versions_change(tmp_path: Path) -> None:
    pip = Pip()
    for rival, calls in (
        (RIVAL, 2),
        (RIVAL, 2),
        (r.Rival("somebody", "consume_somebody.py", ("somebody==1.1",)), 4),
    ):
        Environments().prepare([rival], tmp_path, pip)
        assert len(pip.calls) == calls


def test_an_install_that_failed_is_tried_again(tmp_path: Path) -> None:
    Environments().prepare([RIVAL], tmp_path, Pip("ERROR: no network"))
    again = Environments()
    again.prepare([RIVAL], tmp_path, Pip())
    assert "somebody" in again.pythons


def test_no_rival_gets_the_path_of_this_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    monkeypatch.setenv("PROSODY_MAX_CONCURRENCY", "1")
    theirs, ours = environment_of(r.EVENTS_DEFAULTS), environment_of(r.DEFAULTS_PURE)
    assert "PYTHONPATH" not in theirs
    assert ours["PYTHONPATH"] != "somewhere"
    assert ours["PROSODY_PURE_PYTHON"] == "1"
    assert "PROSODY_MAX_CONCURRENCY" not in theirs | ours


# ----------------------------------------------------------------------------------- the processes


async def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, limit_s: float) -> Any:
    monkeypatch.setattr(child, "SCRIPTS", tmp_path)
    monkeypatch.setattr(child, "GRACE_S", 0.01)
    (tmp_path / r.RIVALS["aiokafka"].script).write_text(code, encoding="utf-8")
    async with started(sys.executable, r.BARE, {"a": 1}) as process:
        return await process.until("result", limit_s)


async def test_a_result_is_found_among_other_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = 'import sys; print(\'hello\'); print(1); print(\'{"event": "result", "job": %s}\' % sys.argv[1])'
    assert (await said(tmp_path, monkeypatch, code, 60.0))["job"] == {"a": 1}


async def test_a_process_that_ends_with_an_error_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ChildError, match="ended with 1, saying: ValueError: no"):
        await said(tmp_path, monkeypatch, "raise ValueError('no')", 60.0)


async def test_a_process_that_hangs_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ChildError, match="hung: no result"):
        await said(tmp_path, monkeypatch, "import time; time.sleep(600)", 0.01)


PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
"""
"""Ends as soon as its child is at work."""
CHILD = """
import time
from benchmarks.compare.scripts.checking import Check
Check({"expected": 1, "deadline_s": 60.0}).starts()
print("at work", flush=True)
time.sleep(60.0)
"""


def test_a_process_ends_with_the_comparison_that_started_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert parent.wait(30.0) == 0
    ends_by = time.monotonic() + 30.0
    while command_line(pid):
        assert time.monotonic() < ends_by, f"process {pid} is still there"
        time.sleep(0.02)
