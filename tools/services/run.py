"""Start servers, run a command against them, end them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from tools.services import SERVERS
from tools.services.detached import close_together, start_together

# Ctrl-C at a terminal reaches the command as well: it gets this long to tidy up by itself.
_GRACE_S = 20.0
_TERMINATE_S = 10.0
_POLL_S = 0.2
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Ended(BaseException):
    """A signal asks us to end; not an Exception, so that nothing on the way takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Signals:
    """What ends us: raised while servers come up, only noted while the command runs.

    Raising then could cut in between the command's end and our learning of its exit code.
    """

    def __init__(self) -> None:
        self.noted: int | None = None
        self.raising = True
        self._former = {number: signal.signal(number, self._handle) for number in _ENDING_SIGNALS}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # The first one counts: it is being obeyed, within its deadline.
        if self.noted is None:
            self.noted = number
            if self.raising:
                raise _Ended(number)

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._former.items():
            signal.signal(number, handler)


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
    signals = _Signals()
    try:
        start_together(servers)
        for server in servers:
            print(
                f"{server.title} on {server.address} after {server.started_in_s:.1f} s",
                file=sys.stderr,
            )
        signals.raising = False
        return _run_command(
            command, {server.variable: server.address for server in servers}, signals
        )
    except _Ended as ended:
        return 128 + ended.number
    finally:
        # Nothing may cut the ending short; it has its own deadlines.
        signals.raising = False
        close_together(servers)
        signals.restore()


def _run_command(command: Sequence[str], variables: dict[str, str], signals: _Signals) -> int:
    try:
        process = subprocess.Popen(command, env=os.environ | variables)
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    try:
        while signals.noted is None and _wait(process, _POLL_S) is None:
            pass
        if signals.noted == signal.SIGINT:
            _wait(process, _GRACE_S)
        elif signals.noted is not None:
            process.send_signal(signals.noted)
            _wait(process, _TERMINATE_S)
    finally:
        if process.poll() is None:
            process.terminate()
            _wait(process, _TERMINATE_S)
        if process.poll() is None:
            process.kill()
            process.wait()
    if signals.noted is not None and signals.noted != signal.SIGINT:
        return 128 + signals.noted
    code = process.returncode
    return 128 - code if code < 0 else code


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    """The exit code, None when the command still runs after ``timeout_s``."""
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        # The caller has a next step for that.
        return None
