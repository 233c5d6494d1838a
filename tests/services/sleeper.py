"""A server that only sleeps: what the starter does around a process, without a JVM."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from tools.services import process


class Sleeper(process.Server):
    """Runs the Python text ``script``; answers once its log holds a line ``ready``."""

    name = "sleeper"
    title = "Sleeper"
    variable = "PROSODY_TEST_SLEEPER"
    script = "import time; print('ready', flush=True); time.sleep(300)"

    def _prepare(self, folder: Path, java: str, jars: Path) -> None:
        (folder / "data").mkdir()

    def _command(self, folder: Path, java: str, jars: Path) -> list[str]:
        return [sys.executable, "-c", self.script, str(folder)]

    def answers(self) -> bool:
        return "\nready" in self.log_path.read_text()


def without_java() -> None:
    """Let sleepers start on a machine that has neither Java nor Maven."""
    with_neither: dict[str, Any] = {
        "find_java": lambda *_, **__: "java",
        "ensure_jars": lambda *_: Path("jars"),
    }
    vars(process).update(with_neither)


if __name__ == "__main__":
    # Started by tests: one sleeper, its process id and folder printed, then a parent that waits.
    without_java()
    server = Sleeper().start()
    print(server.pid, server.folder, flush=True)
    time.sleep(float(sys.argv[1]))
