"""Floors of the path and of the core: what counts as below, and how often that is tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.tracking import halves, path
from benchmarks.tracking.floors import Floor, below
from benchmarks.tracking.path import floor, shares
from benchmarks.tracking.results import Case, benchmark_of, structure_of, what_it_measures
from benchmarks.tracking.runner import BenchmarkError, bench_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.tracking.floors import Values
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

    def __call__(self, floors: Sequence[Floor]) -> Values:
        found: Values = {}
        for each in floors:
            half = str(each.what[0])
            self.asked.append(half)
            if self.tries[half]:
                found[each.what] = self.tries[half].pop(0)
        return found


TWO = (floor("cython", "pipeline", 0.2), floor("python", "pipeline", 0.1))


def test_one_run_of_three_at_the_floor_is_enough() -> None:
    runs = Runs(cython=[0.2], python=[0.05, 0.09, 0.1])
    assert below(runs, TWO) == []
    assert runs.asked == ["cython", "python", "python", "python"], "what holds is not run again"


def test_three_runs_of_three_below_it_fail() -> None:
    runs = Runs(cython=[0.3], python=[0.05, 0.09, 0.0999])
    assert below(runs, TWO) == [
        "BELOW ITS FLOOR in 3 of 3 tries: pipeline, pure half, of the bare loop: at least 0.1"
    ]


def test_what_is_not_measured_is_below(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(below(Runs(cython=[], python=[1.0]), TWO)) == 1
    assert "not measured" in capsys.readouterr().out


def test_each_half_has_a_floor_of_the_path() -> None:
    assert {each.what[0] for each in path.FLOORS} == {"cython", "python"}


def test_only_halves_with_a_floor_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(what: list[str], seconds: float, variables: dict[str, str]) -> Document:
        asked.append(variables["PROSODY_PURE_PYTHON"])
        return document("python" if asked[-1] else "cython", bare=1.0, pipeline=10.0)

    asked: list[str] = []
    monkeypatch.setattr(path, "run", run)
    assert path.measure(TWO[1:]) == {("python", "pipeline"): 0.1}
    assert asked == ["1"]
    assert path.measure(TWO) == {("python", "pipeline"): 0.1, ("cython", "pipeline"): 0.1}
    assert asked == ["1", "", "1"]


def test_each_structure_has_a_floor_of_the_core() -> None:
    structures = {structure_of(file) for file in bench_files()}
    assert {each.what[0] for each in halves.FLOORS} == structures


@pytest.mark.parametrize("floor", halves.FLOORS, ids=lambda floor: floor.text)
def test_a_floor_of_the_core_names_its_test(floor: Floor) -> None:
    case = Case(*floor.what)  # type: ignore[arg-type]
    benchmark = {
        "fullname": benchmark_of(case, "python"),
        "params": {"size": case.n},
        "extra_info": {},
    }
    assert what_it_measures(benchmark) == (case, "python")


def test_a_floor_of_the_core_is_measured() -> None:
    """By its test, which both halves run; of another case there is no value."""
    key_queue = halves.FLOORS[:1]
    assert halves.measure(key_queue)[key_queue[0].what] > 0.0
    assert halves.FLOORS[1].what not in halves.measure(key_queue)


def test_a_run_that_fails_is_no_value() -> None:
    with pytest.raises(BenchmarkError, match="no_such"):
        halves.measure([Floor(Case("key queue", "no such", None), 1.0, "nothing")])
