"""The whole path against its floors: what counts as below, and how often that is tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.tracking.path import FLOORS, Floor, below, shares

if TYPE_CHECKING:
    import pytest

    from benchmarks.tracking.path import Shares
    from benchmarks.tracking.results import Document


def document(half: str, **seconds: float) -> Document:
    return {
        "benchmarks": [
            {"extra_info": {"half": half, "contestant": who}, "stats": {"min": took}}
            for who, took in seconds.items()
        ]
    }


def test_shares_are_of_the_bare_loop_of_the_same_half() -> None:
    found = shares(document("cython", pipeline=4.0, bare=1.0)) | shares(
        document("python", bare=2.0, pipeline=16.0)
    )
    assert found == {("cython", "pipeline"): 0.25, ("python", "pipeline"): 0.125}


class Runs:
    """Runs that show what they are told to, one try after the other."""

    def __init__(self, **tries: list[float]) -> None:
        self.tries = tries
        self.asked: list[str] = []

    def __call__(self, half: str) -> Shares:
        self.asked.append(half)
        return {(half, "pipeline"): self.tries[half].pop(0)} if self.tries[half] else {}


TWO = (Floor("cython", "pipeline", 0.2), Floor("python", "pipeline", 0.1))


def test_one_run_of_three_at_the_floor_is_enough() -> None:
    runs = Runs(cython=[0.2], python=[0.05, 0.09, 0.1])
    assert below(runs, TWO) == []
    assert runs.asked == ["cython", "python", "python", "python"], "what holds is not run again"


def test_three_runs_of_three_below_it_fail() -> None:
    runs = Runs(cython=[0.3], python=[0.05, 0.09, 0.0999])
    assert below(runs, TWO) == [
        "BELOW ITS FLOOR in 3 of 3 tries: pipeline, pure half: at least 0.1 of the bare loop"
    ]


def test_what_is_not_measured_is_below(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(below(Runs(cython=[], python=[1.0]), TWO)) == 1
    assert "not measured" in capsys.readouterr().out


def test_each_half_has_a_floor() -> None:
    assert {floor.half for floor in FLOORS} == {"cython", "python"}
