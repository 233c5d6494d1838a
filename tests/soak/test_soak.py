"""What can be said of the soak without playing it; `python -m tests.soak` plays it."""

from __future__ import annotations

import inspect

import pytest

from tests.processes.histories import judge
from tests.processes.history import Run
from tests.soak.disturbances import Disturbances
from tests.soak.verdict import ended_by_dead_letters


def run(seq: int, began: float, *, ended: float | None, failed: bool = True) -> Run:
    return Run("member", 0, seq + 9, "failing-1", seq, began, ended, failed)


@pytest.mark.parametrize("name", sorted(set(Disturbances.NAMES)))
def test_each_disturbance_is_there(name: str) -> None:
    assert inspect.iscoroutinefunction(getattr(Disturbances, name))


def test_a_dead_letter_ends_its_message_with_the_last_run_of_it() -> None:
    runs = [run(1, 1.0, ended=2.0), run(1, 3.0, ended=4.0), run(2, 5.0, ended=6.0, failed=False)]
    verdict = judge(ended_by_dead_letters(runs, {("failing-1", 1)}), {"failing-1": 2})
    assert (verdict.handled, verdict.lost, verdict.disorder) == (2, [], [])
    without = judge(ended_by_dead_letters(runs, set()), {"failing-1": 2})
    assert without.lost == [("failing-1", 1)]


def test_what_began_before_the_dead_letter_was_due_is_out_of_order() -> None:
    runs = [run(1, 1.0, ended=2.0), run(2, 3.5, ended=6.0, failed=False), run(1, 3.0, ended=4.0)]
    assert judge(ended_by_dead_letters(runs, {("failing-1", 1)}), {"failing-1": 2}).disorder


def test_a_run_that_a_kill_ended_is_ended_by_no_dead_letter() -> None:
    runs = [run(1, 1.0, ended=None)]
    assert ended_by_dead_letters(runs, {("failing-1", 1)}) == runs
