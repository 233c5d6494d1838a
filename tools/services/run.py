"""Start servers, run a command against them, end them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from tools.services import SERVERS
from tools.services.detached import close_together, start_together

# Ctrl-C at a terminal reaches the command as well: it gets this long to tidy up by itself.
_GRACE_S = 20.0
_TERMINATE_S = 10.0
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Ended(BaseException):
    """A signal asks us to end; not an Exception, so that nothing on the way takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(names: Sequence[str], command: Sequence[str]) -> int:
    """Run ``command`` with the servers' variables set, and return its exit code.

    A server whose variable is set already is not started: the command gets that one. On Ctrl-C, SIGTERM
    and SIGHUP the command is ended and the servers too. A command that a signal ended counts as
    128 + signal, as in a shell; one that does not exist as 127.

    Raises:
        ServiceError: a server could not be started.
    """
    servers = [
        server()
        for name, server in SERVERS.items()
        if name in names and not os.environ.get(server.variable)
    ]
    try:
        with _signals_raise():
            try:
                start_together(servers)
                for server in servers:
                    print(
                        f"{server.title} on {server.address} after {server.started_in_s:.1f} s",
                        file=sys.stderr,
                    )
                return _run_command(
                    command, {server.variable: server.address for server in servers}
                )
            finally:
                # Nothing may cut the ending short; it has its own deadlines.
                for number in _ENDING_SIGNALS:
                    signal.signal(number, signal.SIG_IGN)
                close_together(servers)
    except _Ended as ended:
        return 128 + ended.number


def _run_command(command: Sequence[str], variables: dict[str, str]) -> int:
    try:
        process = subprocess.Popen(command, env=os.environ | variables)
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    try:
        return _exit_code(process.wait())
    except _Ended as ended:
        if ended.number == signal.SIGINT:
            return _exit_code(_wait(process, _GRACE_S))
        process.send_signal(ended.number)
        _wait(process, _TERMINATE_S)
        raise
    finally:
        if process.poll() is None:
            process.terminate()
            _wait(process, _TERMINATE_S)
        if process.poll() is None:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    """The exit code, None when the command still runs after ``timeout_s``, whatever signals come in."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None
        except _Ended:
            # An impatient second Ctrl-C: the first one is being obeyed, within its deadline.
            continue


def _exit_code(code: int | None) -> int:
    if code is None:
        return 128 + signal.SIGINT
    return 128 - code if code < 0 else code


@contextmanager
def _signals_raise() -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        raise _Ended(number)

    former = {number: signal.signal(number, end) for number in _ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
