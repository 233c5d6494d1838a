"""Runs the benchmarks of the structures and says on what."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from benchmarks.tracking.results import Document

ROOT = Path(__file__).parents[2]
DEADLINE_S = 1_800.0
# CPU time. On a busy machine a round of the slower side is longer than the scheduler lets it run, so by the
# clock on the wall its minimum was up to four times too high, and the ratio with it.
TIMER = "time.process_time"
VERSIONS = ("prosody-asyncio", "cython", "pytest-benchmark", "matplotlib")


class BenchmarkError(Exception):
    """The benchmarks did not run to their end; the text is what pytest printed."""


def bench_files() -> list[str]:
    """One for each structure, relative to the project."""
    return [f"benchmarks/{path.name}" for path in sorted((ROOT / "benchmarks").glob("bench_*.py"))]


def run(
    what: Iterable[str], seconds_each: float, variables: Mapping[str, str] | None = None
) -> Document:
    """The document that pytest-benchmark writes for the files or ids in ``what``.

    :param variables: of the environment, besides those of this process.
    :raises BenchmarkError: when one of them fails, or none is found.
    """
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder) / "run.json"
        ended = subprocess.run(
            [
                sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-only",
                f"--benchmark-timer={TIMER}", f"--benchmark-max-time={seconds_each}",
                f"--benchmark-json={document}", *what,
            ],
            cwd=ROOT,
            env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
            | dict(variables or {}),
            capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
        if ended.returncode:
            raise BenchmarkError(ended.stdout + ended.stderr)
        found: Document = json.loads(document.read_text(encoding="utf-8"))
        return found


def about(document: Document, command: str) -> dict[str, str]:
    """Date, machine and versions of the run that wrote ``document``."""
    info = document["machine_info"]
    cpu = info["cpu"]  # what py-cpuinfo found, which is less on some machines
    return {
        "date": document["datetime"][:10],
        "processor": f"{cpu.get('brand_raw', 'not known')}, {cpu.get('count', '?')} cores",
        "system": f"{info['system']} {info['machine']}",
        "Python": f"{info['python_implementation']} {info['python_version']}",
        **{name: importlib.metadata.version(name) for name in VERSIONS},
        "command": command,
    }
