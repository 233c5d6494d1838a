"""Which half of the core an installation runs, and how it says so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.packaging.builds import Finished, build, build_from, copy_tree, only_file, run, unpack

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]

WHICH = (
    "import prosody._core as core\n"
    "print(core.__file__)\n"
    "print(core.IMPLEMENTATION)\n"
    "print(core.KeyQueue.__module__, core.OffsetTracker.__module__)\n"
    "print(core.FALLBACK_REASON)"
)
NO_COMPILER = {"CC": "/bin/false"}


def which_half(installed: Path, **variables: str) -> tuple[str, str, str]:
    """What a program that runs from elsewhere sees: implementation, modules, reason."""
    asked = run(
        sys.executable, "-c", WHICH,
        cwd=installed.parent,
        PYTHONPATH=str(installed),
        **variables,
    )  # fmt: skip
    assert asked.code == 0, asked.output
    file, implementation, modules, reason = asked.output.strip().split("\n")
    assert Path(file).is_relative_to(installed), "another prosody was imported"
    return implementation, modules, reason


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(wheel, tmp_path_factory.mktemp("compiled") / "site")


@pytest.fixture(scope="session")
def without_compiler(tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, Path]:
    target = tmp_path_factory.mktemp("pure")
    done = build("wheel", target, **NO_COMPILER)
    assert done.code == 0, done.output
    return done, unpack(only_file(target, "*.whl"), target / "site")


def test_a_compiled_wheel_runs_the_compiled_half(installed: Path) -> None:
    modules = "prosody._core.key_queue_c prosody._core.offset_tracker_c"
    assert which_half(installed) == ("cython", modules, "None")


@pytest.mark.parametrize("value", ["1", "true"])
def test_the_variable_forces_the_python_half(installed: Path, value: str) -> None:
    implementation, modules, reason = which_half(installed, PROSODY_PURE_PYTHON=value)
    assert implementation == "python"
    assert modules == "prosody._core.key_queue_py prosody._core.offset_tracker_py"
    assert "PROSODY_PURE_PYTHON" in reason


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_the_variable_switched_off_forces_nothing(installed: Path, value: str) -> None:
    assert which_half(installed, PROSODY_PURE_PYTHON=value)[0] == "cython"


@pytest.mark.parametrize("missing", ["key_queue_c", "offset_tracker_c"])
def test_halves_are_never_mixed(wheel: Path, tmp_path: Path, missing: str) -> None:
    site = unpack(wheel, tmp_path / "site")
    only_file(site / "prosody" / "_core", f"{missing}.*.*").unlink()
    implementation, modules, reason = which_half(site)
    assert implementation == "python"
    assert modules == "prosody._core.key_queue_py prosody._core.offset_tracker_py"
    assert f"No module named 'prosody._core.{missing}'" in reason
    assert "PROSODY_REQUIRE_EXTENSIONS" in reason


def test_a_build_without_compiler_warns_once(without_compiler: tuple[Finished, Path]) -> None:
    done, _ = without_compiler
    assert done.output.count("WARNING: prosody is installed WITHOUT its compiled core") == 1
    assert "/bin/false" in done.output, "the warning names the reason"
    assert "PROSODY_REQUIRE_EXTENSIONS=1" in done.output


def test_a_build_without_compiler_runs_the_python_half(
    without_compiler: tuple[Finished, Path],
) -> None:
    _, site = without_compiler
    assert list(site.rglob("*.so")) == []
    implementation, _, reason = which_half(site)
    assert implementation == "python"
    assert "_c'" in reason, "it names what is missing"


def test_a_build_without_compiler_fails_where_the_core_is_required(
    tmp_path: Path,
) -> None:
    done = build("wheel", tmp_path, PROSODY_REQUIRE_EXTENSIONS="1", **NO_COMPILER)
    assert done.code != 0
    assert "/bin/false" in done.output
    assert list(tmp_path.glob("*.whl")) == []


def test_one_module_that_does_not_compile_drops_all(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    # Last in order, so that the others are compiled already.
    (tree / "prosody" / "_core" / "zz_broken_c.pyx").write_text("cdef int broken(: pass\n")
    done = build_from(tree, "wheel", tmp_path / "dist")
    assert done.code == 0, done.output
    site = unpack(only_file(tmp_path / "dist", "*.whl"), tmp_path / "site")
    assert list(site.rglob("*.so")) == []


def test_a_failed_editable_build_drops_stale_modules(tmp_path: Path) -> None:
    """An old compiled module would run instead of the sources the user sees."""
    tree = copy_tree(tmp_path / "tree")
    core = tree / "prosody" / "_core"
    built = run(
        sys.executable,
        "setup.py",
        "build_ext",
        "--inplace",
        cwd=tree,
        PROSODY_REQUIRE_EXTENSIONS="1",
    )
    assert built.code == 0, built.output
    assert len(list(core.glob("*.so"))) >= 2
    again = run(
        sys.executable, "setup.py", "build_ext", "--inplace", "--force", cwd=tree, **NO_COMPILER
    )
    assert again.code == 0, again.output
    assert list(core.glob("*.so")) == []


def test_the_variable_skips_the_build(tmp_path: Path) -> None:
    done = build("wheel", tmp_path, PROSODY_PURE_PYTHON="1", **NO_COMPILER)
    assert done.code == 0, done.output
    assert "WARNING: prosody is installed" not in done.output, "it was asked for"
    assert only_file(tmp_path, "*.whl").name.endswith("-py3-none-any.whl")


def test_contradicting_variables_are_refused(tmp_path: Path) -> None:
    done = build("wheel", tmp_path, PROSODY_PURE_PYTHON="1", PROSODY_REQUIRE_EXTENSIONS="1")
    assert done.code != 0
    assert "contradict" in done.output
