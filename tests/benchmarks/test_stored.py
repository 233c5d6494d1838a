"""The stored run, the page and the picture made from it, and that the benchmarks still run."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks.tracking.bars import BARS
from benchmarks.tracking.picture import draw
from benchmarks.tracking.report import page
from benchmarks.tracking.results import Case, Run, structure_of
from benchmarks.tracking.runner import ROOT, bench_files

if TYPE_CHECKING:
    from pathlib import Path

STORED = Run.from_json((ROOT / "benchmarks/stored/core.json").read_text(encoding="utf-8"))


def test_every_structure_is_stored() -> None:
    names = {structure_of(path) for path in bench_files()}
    assert names >= {"key queue", "offset tracker", "rolling window", "virtual-time heap"}
    assert {case.structure for case in STORED.seconds} == names


def test_what_the_bars_need_is_stored() -> None:
    assert [bar.text for bar in BARS if bar.value(STORED.seconds) is None] == []


def test_the_page_is_that_of_the_stored_run() -> None:
    """Else: ``make bench-compare`` makes it again."""
    written = (ROOT / "docs/benchmarks/core.md").read_text(encoding="utf-8")
    assert written == page(STORED, BARS, "core.svg")


SECONDS = {
    Case("heap", "pick", n): {"cython": n * 1e-9, "python scan": n * 1e-7} for n in (64, 1_024)
}


@pytest.fixture(scope="module")
def _fonts(tmp_path_factory: pytest.TempPathFactory) -> None:
    """matplotlib keeps the files of the fonts that it has drawn with open, for the whole process."""
    draw(SECONDS, tmp_path_factory.mktemp("fonts") / "first.svg")


@pytest.mark.usefixtures("_fonts")
def test_the_same_run_makes_the_same_picture(tmp_path: Path) -> None:
    pictures = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for picture in pictures:
        draw(SECONDS, picture)
    first, second = (picture.read_text(encoding="utf-8") for picture in pictures)
    assert first == second
    assert "<dc:date>" not in first
    assert first.count("<svg ") == 1


def test_the_benchmarks_run() -> None:
    """Each once and untimed, with both halves; the greatest size, which is slow to fill, apart."""
    command = [
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--benchmark-disable",
        "-k",
        "not 100000",
    ]
    ended = subprocess.run(
        [sys.executable, *command, *bench_files()],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
