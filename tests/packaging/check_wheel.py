"""Tests an installed wheel with each half of the core; the release runs it before it publishes.

Run with the Python that has the wheel installed, in a folder that holds ``tests`` and ``pyproject.toml``
but no ``prosody``: ``python tests/packaging/check_wheel.py``. Exits non-zero when anything fails.
"""

from __future__ import annotations

import os
import subprocess
import sys

SMOKE = """
import sys
import prosody, prosody._core as core
assert core.IMPLEMENTATION == sys.argv[1], (core.IMPLEMENTATION, core.FALLBACK_REASON)
assert prosody.__file__.startswith(sys.prefix), f"not the installed wheel: {prosody.__file__}"
queue, tracker = core.KeyQueue(), core.OffsetTracker()
assert queue.push("key", "entry") and queue.pop() == "entry" and not queue.done("key")
tracker.admit(7, 0.0)
assert tracker.complete(7) and tracker.committable == 8
print("smoke:", core.IMPLEMENTATION, prosody.__file__)
"""


def main() -> int:
    failed = 0
    for half in ("cython", "python"):
        environment = {k: v for k, v in os.environ.items() if k != "PROSODY_PURE_PYTHON"}
        if half == "python":
            environment["PROSODY_PURE_PYTHON"] = "1"
        for command in (
            [sys.executable, "-c", SMOKE, half],
            [sys.executable, "-m", "pytest", "tests/core", "-q", "-p", "no:cacheprovider"],
        ):
            failed |= subprocess.run(command, env=environment, check=False).returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
