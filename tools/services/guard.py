"""A small process that ends a server when the process that started it dies.

A test run can end in a way that leaves no chance to tidy up (SIGKILL, a crash of the interpreter). The
guard holds the reading end of a pipe; when the other end closes without a farewell, it ends the server
and removes its folder. Asking the kernel for a signal at the parent's death was rejected: that follows
the starting *thread*, needs code between fork and exec, and exists on Linux only.

It runs as a script, on the standard library alone: ``guard.py <parent pid> <server pid> <folder>``.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

FAREWELL = b"."

_PARENT_POLL_S = 1.0
_END_TIMEOUT_S = 10.0


def command_line(pid: int) -> str:
    """The arguments of process ``pid``, joined by spaces; empty when it has ended or is a zombie."""
    if Path("/proc/self/cmdline").exists():
        try:
            return (
                Path(f"/proc/{pid}/cmdline")
                .read_bytes()
                .replace(b"\0", b" ")
                .decode("utf-8", "replace")
            )
        except OSError:
            # It has ended.
            return ""
    answer = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)],
        capture_output=True,
        text=True,
        timeout=_END_TIMEOUT_S,
        check=False,
    )
    return answer.stdout if answer.returncode == 0 else ""


def is_ours(pid: int, folder: str) -> bool:
    """Whether ``pid`` still is the server of ``folder``, and not a newcomer with a recycled id.

    Every server has its folder, whose name is unique, among its arguments.
    """
    return folder in command_line(pid)


def end_process(pid: int, folder: str, *, timeout_s: float = _END_TIMEOUT_S) -> bool:
    """Kill the server of ``folder`` if ``pid`` still is it; True once it is gone."""
    deadline = time.monotonic() + timeout_s
    while is_ours(pid, folder):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            # Ended between the look and the signal.
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _wait_for_parent(parent: int) -> bool:
    """True when the parent said farewell, False when it died without."""
    # Not only the pipe: a child that the parent forked may hold its writing end open.
    while os.getppid() == parent:
        ready, _, _ = select.select([0], [], [], _PARENT_POLL_S)
        if ready:
            return os.read(0, 1) == FAREWELL
    return False


def _main(parent: int, pid: int, folder: str) -> None:
    if not _wait_for_parent(parent):
        end_process(pid, folder)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
