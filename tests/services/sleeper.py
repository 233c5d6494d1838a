"""A server that is a sleeping shell: what the starter does around a process, without a JVM."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tools.services import process


class Sleeper(process.Server):
    """Runs ``script`` in a shell; answers once its log holds ``ready``."""

    name = "sleeper"
    title = "Sleeper"
    variable = "PROSODY_TEST_SLEEPER"
    script = "echo ready; exec sleep 300"

    def _prepare(self, folder: Path, java: str, jars: Path) -> None:
        (folder / "data").mkdir()

    def _command(self, folder: Path, java: str, jars: Path) -> list[str]:
        # The tail keeps the folder among the arguments, as the starter demands.
        return ["/bin/sh", "-c", self.script.replace("exec sleep", "sleep") + "; :", str(folder)]

    def answers(self) -> bool:
        return "\nready" in self.log_path.read_text()


def without_java() -> None:
    """Let sleepers start on a machine that has neither Java nor Maven."""
    process.find_java = lambda *_, **__: "java"
    process.ensure_jars = lambda *_: Path("jars")


if __name__ == "__main__":
    # Started by tests: one sleeper, its process id and folder printed, then a parent that waits.
    without_java()
    server = Sleeper().start()
    print(server.pid, server.folder, flush=True)
    time.sleep(float(sys.argv[1]))
