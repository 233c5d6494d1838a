"""Start a process that cannot outlive the one that started it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tools.services import guard

# The shell waits for a word before it becomes the server. When the parent dies, or is interrupted,
# before the guard stands, the pipe closes and the server is never started.
_START_GATE = 'read -r _ && exec "$0" "$@" </dev/null'
_DISMISS_TIMEOUT_S = 30.0
_FREEZE_POLL_S = 0.002


def spawn_guarded(
    command: Sequence[str], folder: Path, log_path: Path
) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
    """Run ``command`` in ``folder``, its output appended to ``log_path``; returns it and its guard.

    The command must name the folder: by that the guard knows the process.
    """
    with log_path.open("ab") as log:
        log.write(f"--- {' '.join(command)}\n".encode())
        log.flush()
        # A session of its own: Ctrl-C at the terminal is for us, and we end the server.
        process = subprocess.Popen(
            ["/bin/sh", "-c", _START_GATE, *command],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    watcher = subprocess.Popen(
        [
            *(sys.executable, "-I", "-S", guard.__file__),
            *(str(os.getpid()), str(process.pid), str(folder)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    gate = process.stdin
    assert gate is not None
    gate.write(b"go\n")
    gate.close()
    return process, watcher


def dismiss(watcher: subprocess.Popen[bytes]) -> None:
    """End a guard, which then leaves its process alone."""
    assert watcher.stdin is not None
    try:
        watcher.stdin.write(guard.FAREWELL)
        watcher.stdin.close()
    except BrokenPipeError:
        # Somebody ended the guard; there is nothing left to dismiss.
        pass
    watcher.wait(_DISMISS_TIMEOUT_S)


def wait_until_frozen(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """True once every thread of a process that got SIGSTOP stands still, False if it ended or ran on.

    The signal is still on its way when ``kill`` returns: on a busy machine threads run on for a while.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        pid, status = os.waitpid(process.pid, os.WUNTRACED | os.WNOHANG)
        if pid and os.WIFSTOPPED(status):
            return True
        if pid:
            # It ended, and we have just taken the news from Popen.
            process.returncode = os.waitstatus_to_exitcode(status)
            return False
        time.sleep(_FREEZE_POLL_S)
    return False
