"""What the sdist and the wheel hold, and that a user's ``pip install`` of the sdist gives the same."""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.packaging.builds import ROOT, run

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]

COMPILED = sorted(source.stem for source in (ROOT / "prosody" / "_core").glob("*_c.pyx"))
STUBS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "prosody").rglob("*.pyi"))
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "prosody").rglob("*.py"))


def names_in_wheel(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def compiled_in(names: list[str]) -> list[str]:
    pattern = re.compile(r"prosody/_core/(\w+)\.[\w.-]+\.(?:so|pyd)$")
    return sorted(match[1] for name in names if (match := pattern.fullmatch(name)))


def test_the_core_has_compiled_modules_and_a_stub_for_each() -> None:
    assert {"key_queue_c", "offset_tracker_c"} <= set(COMPILED)
    assert [f"prosody/_core/{module}.pyi" for module in COMPILED] == STUBS


def test_wheel_holds_package_compiled_modules_and_types(wheel: Path) -> None:
    names = names_in_wheel(wheel)
    assert compiled_in(names) == COMPILED
    assert "prosody/py.typed" in names
    assert set(STUBS) <= set(names)
    assert set(MODULES) <= set(names), "a package without __init__.py is left out of the wheel"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_wheel_holds_nothing_else(wheel: Path) -> None:
    strangers = [
        name
        for name in names_in_wheel(wheel)
        if not name.startswith(("prosody/", "prosody_asyncio-"))
        or name.endswith((".pyx", ".pxd", ".c", ".html"))
    ]
    assert strangers == []


def test_sdist_holds_sources_and_no_products(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    expected = {f"prosody/_core/{module}.pyx" for module in COMPILED}
    expected |= {"setup.py", "pyproject.toml", "LICENSE", "CHANGELOG.md", "prosody/py.typed"}
    expected |= {"requirements/lock.txt", "tests/packaging/builds.py", *STUBS, *MODULES}
    assert expected <= set(names)
    assert [name for name in names if name.endswith((".so", ".pyd", ".c", ".pyc"))] == []


def test_pip_install_of_the_sdist_works_for_a_user(
    sdist: Path, wheel: Path, tmp_path: Path
) -> None:
    """A new environment, an isolated build, dependencies from the registry: all as a user has it."""
    environment = tmp_path / "venv"
    made = run(sys.executable, "-m", "venv", environment, cwd=tmp_path)
    assert made.code == 0, made.output
    binaries = environment / ("Scripts" if sys.platform == "win32" else "bin")
    python = binaries / "python"
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    installed = run(
        *pip, "--constraint", ROOT / "requirements" / "lock.txt", sdist,
        cwd=tmp_path,
        PROSODY_REQUIRE_EXTENSIONS="1",
    )  # fmt: skip
    assert installed.code == 0, installed.output

    asked = run(
        python, "-c",
        "import importlib.metadata, prosody, prosody._core as core\n"
        "files = importlib.metadata.files('prosody-asyncio')\n"
        "print(core.IMPLEMENTATION, core.FALLBACK_REASON, importlib.metadata.version('prosody-asyncio'))\n"
        "print(*[file.as_posix() for file in files if file.parts[0] == 'prosody'], sep='\\n')",
        cwd=tmp_path,
    )  # fmt: skip
    assert asked.code == 0, asked.output
    first, *files = asked.output.split("\n")
    assert first.split()[:2] == ["cython", "None"]
    from_sdist = {name for name in files if name and "__pycache__" not in name}
    from_clone = {name for name in names_in_wheel(wheel) if name.startswith("prosody/")}
    assert from_sdist == from_clone
