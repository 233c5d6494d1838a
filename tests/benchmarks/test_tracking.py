"""The comparison of two runs, on made-up results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.tracking import report
from benchmarks.tracking.bars import BARS, Bar
from benchmarks.tracking.results import Case, Measured, Run, ratios
from benchmarks.tracking.verdict import FALLEN, MISSING, NEW, OK, RISEN, compare, faults, tried

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.tracking.results import Document, Seconds

PUSH = Case("key queue", "push", 64)
LARGE = Case("key queue", "push", 100_000)
DECODE = Case("offset tracker", "decode", 64)
PICK = Case("heap", "pick", 8_192)
GROWTH = Bar("key queue", "push", "cython", 4.0, 100_000, grows_from=64)
AGAINST_SCAN = Bar("heap", "pick", "cython", 20.0, against="cython scan")


def halves(compiled_us: float, pure_us: float) -> dict[str, float]:
    return {"cython": compiled_us / 1e6, "python": pure_us / 1e6}


def words(stored: Seconds, now: Seconds) -> dict[tuple[Case, str], str]:
    return {(row.case, row.ratio): row.word for row in compare(stored, now)}


def benchmark(name: str, least: float, size: int | None = None, **extra: Any) -> dict[str, Any]:
    """As pytest-benchmark writes one."""
    return {
        "fullname": f"benchmarks/bench_key_queue.py::test_{name}",
        "params": None if size is None else {"size": size, "make": "UNSERIALIZABLE[<class 'x'>]"},
        "extra_info": extra,
        "stats": {"ld15iqr": least, "min": least / 2, "mean": 9.9},
    }


def document(*benchmarks: dict[str, Any]) -> Document:
    return {"benchmarks": list(benchmarks)}


# ------------------------------------------------------------------------------- the comparison


@pytest.mark.parametrize(
    ("case", "compiled_us", "word"),
    [
        (PUSH, 0.1, OK),
        (PUSH, 0.14, OK),
        (PUSH, 0.145, FALLEN),
        (PUSH, 0.071, OK),
        (PUSH, 0.069, RISEN),
        (LARGE, 0.19, OK),
        (LARGE, 0.21, FALLEN),
        (LARGE, 0.051, OK),
        (LARGE, 0.049, RISEN),
    ],
)
def test_a_ratio_may_fall_to_a_share_of_the_stored_one(
    case: Case, compiled_us: float, word: str
) -> None:
    stored, now = {case: halves(0.1, 0.4)}, {case: halves(compiled_us, 0.4)}
    assert words(stored, now) == {(case, "pure / compiled"): word}
    assert compare(stored, now)[0].failed is (word == FALLEN)


@pytest.mark.parametrize("slower", [0.01, 1.0, 100.0])
def test_a_machine_slower_or_faster_altogether_changes_nothing(slower: float) -> None:
    now = {PUSH: halves(0.1 * slower, 0.4 * slower)}
    assert words({PUSH: halves(0.1, 0.4)}, now) == {(PUSH, "pure / compiled"): OK}


def test_what_is_missing_fails_and_what_is_new_is_said() -> None:
    stored: Seconds = {PUSH: halves(0.1, 0.4), DECODE: {"shared": 1e-3}}
    now: Seconds = {LARGE: halves(0.1, 0.4), PICK: {"shared": 1e-3}}
    assert words(stored, now) == {
        (PUSH, "pure / compiled"): MISSING,
        (LARGE, "pure / compiled"): NEW,
        (DECODE, "no ratio"): MISSING,
        (PICK, "no ratio"): NEW,
    }
    assert [row.failed for row in compare(stored, now)] == [False, True, False, True]
    assert faults(compare(stored, now), [], now)[0] == [
        "MISSING: key queue: push, n = 64, pure / compiled",
        "MISSING: offset tracker: decode, n = 64, no ratio",
    ]


def test_a_case_that_lost_one_side_is_missing_that_ratio() -> None:
    with_scan = {PICK: halves(1.0, 10.0) | {"cython scan": 4e-5, "python scan": 2e-3}}
    now = {PICK: halves(1.0, 10.0) | {"cython scan": 4e-5}}
    assert ratios(with_scan) == {
        (PICK, "pure / compiled"): pytest.approx(10),
        (PICK, "compiled scan / compiled"): pytest.approx(40),
        (PICK, "pure scan / pure"): pytest.approx(200),
    }
    assert words(with_scan, now) == {
        (PICK, "pure / compiled"): OK,
        (PICK, "compiled scan / compiled"): OK,
        (PICK, "pure scan / pure"): MISSING,
    }


# ----------------------------------------------------------------------------------- the bars


@pytest.mark.parametrize(("large_us", "met"), [(0.39, True), (0.41, False)])
def test_growth_has_a_bar(large_us: float, met: bool) -> None:
    seconds = {PUSH: halves(0.1, 1.0), LARGE: halves(large_us, 1.0)}
    assert GROWTH.met(seconds) is met
    expected = [] if met else [f"MISSED: {GROWTH.text}"]
    assert faults([], [GROWTH], seconds) == (expected, set() if met else {PUSH, LARGE})


@pytest.mark.parametrize(("scan_us", "met"), [(20.1, True), (19.9, False)])
def test_the_scan_has_a_bar(scan_us: float, met: bool) -> None:
    assert AGAINST_SCAN.met({PICK: {"cython": 1e-6, "cython scan": scan_us / 1e6}}) is met


def test_microseconds_are_shown_and_fail_nothing() -> None:
    bar = Bar("heap", "pick", "cython", 2.0)
    assert bar.value({PICK: halves(2.5, 9.0)}) == pytest.approx(2.5)
    assert not bar.met({PICK: halves(2.5, 9.0)})
    assert faults([], [bar], {PICK: halves(2.5, 9.0)}) == ([], set())
    assert "missed on this machine | 2.50" in report.bars([bar], {PICK: halves(2.5, 9.0)})


def test_a_bar_that_is_not_measured_is_missed() -> None:
    assert faults([], [GROWTH], {}) == ([f"MISSED: {GROWTH.text}"], set())
    assert "NOT MEASURED | -" in report.bars([GROWTH], {})


# -------------------------------------------------------------------------------- several tries


class Scripted:
    """Gives one document after the other, and notes what was asked for."""

    def __init__(self, *compiled: float) -> None:
        self.documents = [
            document(
                benchmark("push[64-cython]", took, 64), benchmark("push[64-python]", 0.4e-3, 64)
            )
            for took in compiled
        ]
        self.asked: list[list[str]] = []

    def __call__(self, what: Iterable[str]) -> Document:
        self.asked.append(list(what))
        return self.documents[len(self.asked) - 1]


def test_a_try_that_fails_is_repeated_for_what_fell_and_the_least_counts() -> None:
    measure = Scripted(0.3e-3, 0.1e-3, 9.9)
    measured, rows, said = tried(measure, ["all"], {PUSH: halves(0.1, 0.4)}, [])
    path = "benchmarks/bench_key_queue.py::test_push"
    assert measure.asked == [["all"], [f"{path}[64-cython]", f"{path}[64-python]"]]
    assert measured.seconds == {PUSH: pytest.approx(halves(0.1, 0.4))}
    assert (said, [row.word for row in rows]) == ([], [OK])


def test_three_tries_are_all() -> None:
    measure = Scripted(0.3e-3, 0.25e-3, 0.3e-3)
    _, rows, said = tried(measure, ["all"], {PUSH: halves(0.1, 0.4)}, [])
    assert len(measure.asked) == 3
    assert said == ["FALLEN: key queue: push, n = 64, pure / compiled"]
    assert rows[0].now == pytest.approx(1.6)


def test_what_is_missing_is_not_tried_again() -> None:
    measure = Scripted(0.1e-3)
    stored = {PUSH: halves(0.1, 0.4), LARGE: halves(0.1, 0.4)}
    _, _, said = tried(measure, ["all"], stored, [GROWTH])
    assert said[0] == "MISSING: key queue: push, n = 100,000, pure / compiled"


# ------------------------------------------------------------------------ what pytest-benchmark says


@pytest.mark.parametrize(
    ("name", "size", "extra", "operation", "side", "us"),
    [
        ("a_b[cython]", None, {}, "a b", "cython", 1.0),
        ("a[64-python]", 64, {}, "a", "python", 1.0),
        ("a[64-gaps-python]", 64, {}, "a (gaps)", "python", 1.0),
        ("a[8-cython-scan]", 8, {"operations": 10}, "a", "cython scan", 100.0),
        ("a[python_scan-8]", 8, {}, "a", "python scan", 1.0),
        ("a[64]", 64, {"operations": 1}, "a", "shared", 1000.0),
        ("a[8-cython]", 8, {"operations": 8, "each": "key"}, "a, each key", "cython", 125.0),
    ],
)
def test_a_benchmark_says_what_it_measures(
    name: str, size: int | None, extra: dict[str, Any], operation: str, side: str, us: float
) -> None:
    given = benchmark(name, 1e-3, size, **extra)
    case = Case("key queue", operation, size)
    measured = Measured()
    measured.add(document(given))
    assert measured.seconds == {case: {side: pytest.approx(us / 1e6)}}
    assert measured.nodes == {case: {given["fullname"]}}


@pytest.mark.parametrize("ids", ["scan", "cython-python", "scan-cython"])
def test_ids_that_make_no_side_are_refused(ids: str) -> None:
    with pytest.raises(ValueError, match=r"test_a\[.*: its ids must make one of cython, python"):
        Measured().add(document(benchmark(f"a[{ids}]", 1.0)))


def test_two_benchmarks_of_the_same_are_refused() -> None:
    with pytest.raises(ValueError, match=r"key queue: a \(b\) has two for cython; rename one"):
        Measured().add(document(benchmark("a[b-cython]", 1.0), benchmark("a[cython-b]", 1.0)))


# ------------------------------------------------------------------------------- stored and shown


def test_a_stored_run_is_read_back() -> None:
    run = Run({"date": "2026-11-23"}, {PUSH: halves(0.1234, 0.5), DECODE: {"shared": 1e-3}})
    text = run.to_json()
    assert Run.from_json(text) == run
    assert Run.from_json(text).to_json() == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.06234, "0.062"), (1.005, "1.00"), (9.996, "10.0"), (99.96, "100"), (54_321.0, "54,321"),
        (None, "-"),
    ],
)  # fmt: skip
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert report.number(value) == text


def test_the_tables_show_every_case() -> None:
    seconds = {PUSH: halves(0.1, 0.4), PICK: halves(1, 10) | {"cython scan": 4e-5}}
    costs = report.costs(seconds)
    assert "| push | 64 | 0.100 | 0.400 | 4.00 |" in costs
    assert "| pick | 8,192 | 1.00 | 10.0 | 40.0 | 10.0 | 40.0 |" in costs
    shown = report.comparison(compare({PUSH: halves(0.1, 0.8)}, seconds))
    assert "| key queue | push | pure / compiled | FALLEN | 64 | 8.00 | 4.00 | 0.500 |" in shown
    assert "| heap | pick | compiled scan / compiled | new | 8,192 | - | 40.0 | - |" in shown


def test_every_bar_has_a_text_of_its_own() -> None:
    assert len({bar.text for bar in BARS}) == len(BARS)
