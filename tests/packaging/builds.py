"""Builds from a copy of the tree, so that the checkout stays clean."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SWITCHES = ("PROSODY_PURE_PYTHON", "PROSODY_REQUIRE_EXTENSIONS", "CC", "PYTHONPATH")
NOT_COPIED = shutil.ignore_patterns(
    ".*", "__pycache__", "build", "dist", "*.egg-info", "*.so", "*.pyd", "*_c.c", "*_c.html"
)
DEADLINE_S = 240  # of one command; the slowest takes 20 s on two idle cores


@dataclass(frozen=True)
class Finished:
    """How a command ended, both its streams in one text."""

    code: int
    output: str


def run(*command: str | Path, cwd: Path, **variables: str) -> Finished:
    """Run ``command`` without the caller's build switches, and with ``variables`` set."""
    environment = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    # What is built here is looked at and not raced; optimizing it is most of what a build takes.
    environment["CFLAGS"] = "-O0"
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return Finished(done.returncode, done.stdout)


def copy_tree(target: Path) -> Path:
    """The files of the checkout that a fresh clone would have and a build can need."""
    shutil.copytree(ROOT, target, ignore=NOT_COPIED)
    return target


def build(kind: str, target: Path, **variables: str) -> Finished:
    """Build ``kind`` ("sdist" or "wheel") into ``target`` with this environment's tools.

    Each from a copy of its own: the folder ``build`` of an earlier one would hide a missing compiler.
    """
    return build_from(copy_tree(target / "tree"), kind, target, **variables)


def build_from(tree: Path, kind: str, target: Path, **variables: str) -> Finished:
    command = (
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        f"--{kind}",
        "--outdir",
        target,
        ".",
    )
    return run(*command, cwd=tree, **variables)


def only_file(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def unpack(wheel: Path, target: Path) -> Path:
    """Unpacked, a wheel can be put on ``PYTHONPATH``, which stands before an editable install."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target
