"""A virtual environment for each rival, under ``.cache/peers``; one that cannot be had is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.compare.rivals import Rival

    Call = Callable[[Sequence[str]], subprocess.CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".cache" / "peers"
STAMP = "requirements.installed"
INSTALL_LIMIT_S = 600.0
LINES_MAX = 3
"""So much of what a failing install says is kept."""


class InstallError(Exception):
    """A rival's packages cannot be installed here; says why."""


@dataclass
class Environments:
    """The interpreter of each rival, or why there is none."""

    pythons: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def prepare(
        self, rivals: Sequence[Rival], folder: Path = FOLDER, call: Call | None = None
    ) -> None:
        """Make what is not there yet. ``call`` runs a command."""
        for rival in rivals:
            if not rival.requirements:
                self.pythons[rival.name] = sys.executable
                continue
            try:
                self.pythons[rival.name] = str(environment(rival, folder, call or _call))
            except InstallError as failed:
                self.missing[rival.name] = str(failed)


def environment(
    rival: Rival,
    folder: Path,
    call: Call,
) -> Path:
    """The interpreter of ``rival``; its environment is made anew when its requirements changed.

    :raises InstallError: a step failed.
    """
    home = folder / rival.name
    python = home / "bin" / "python"
    stamp = home / STAMP
    wanted = "\n".join((sys.version, *rival.requirements))
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    shutil.rmtree(home, ignore_errors=True)
    steps = (
        (sys.executable, "-m", "venv", str(home)),
        (
            str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            *rival.requirements,
        ),
    )  # fmt: skip
    for step in steps:
        ended = call(step)
        if ended.returncode:
            said = [line for line in ended.stderr.splitlines() if line.strip()]
            errors = [line for line in said if line.startswith("ERROR")] or said
            raise InstallError(" ".join(errors[-LINES_MAX:]) or f"exit code {ended.returncode}")
    stamp.write_text(wanted, encoding="utf-8")
    return python


def _call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))
