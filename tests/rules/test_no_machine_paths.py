"""Nothing in the project names a machine, or the place where it was written."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("prosody", "tests", "tools", "demo", "benchmarks", "docs", ".ci", ".github")
FILES = ("*.md", "*.toml", "*.txt", "*.in", "*.yaml", "*.yml", "*.json", "Makefile", "setup.py")
SUFFIXES = {
    ".py", ".pyi", ".pyx", ".pxd", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".sh", ".xml",
    ".in", "",
}  # fmt: skip
# Written in pieces, so that this file does not find itself.
MACHINE = re.compile(
    "|".join(
        [
            r"(?<![\w.>$}])/" + r"work/(?:main|shared|\.)",
            r"(?<![\w.>$}])/" + r"home/[a-z]",
            r"(?<![\w.>$}])/" + r"Users/[A-Za-z]",
            r"(?<![\w.>$}])/" + r"root/",
            r"(?<![\w.>$}])/" + r"tmp/(?!prosody)\w",
            r"[A-Z]:\\" + r"\\?Users",
        ]
    )
)


def project_files() -> list[Path]:
    """What belongs to the project: what git has or would take; without git, the known folders."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
        ).stdout.split("\0")  # fmt: skip
        found = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        # A source distribution has no git; then everything that lies there belongs to it.
        found = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*")]
        found += [p for pattern in FILES for p in ROOT.glob(pattern)]
    return sorted(p for p in found if p.is_file() and p.suffix in SUFFIXES)


def test_no_machine_path_stands_in_a_file() -> None:
    files = project_files()
    assert len(files) > 60
    bad = [
        f"{path.relative_to(ROOT)}:{number} {line.strip()[:100]}"
        for path in files
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1)
        if MACHINE.search(line)
    ]
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("see /" + "work/main/x", True),
        ('"/' + "home/alice/x", True),
        ("cd /" + "tmp/v && run", True),
        ("/" + "root/.cache", True),
        ("https://example.org/work/main", False),
        ("tmp_path / 'x'", False),
        ("a folder such as /tmp", False),
    ],
)
def test_the_rule(line: str, found: bool) -> None:
    assert bool(MACHINE.search(line)) is found
