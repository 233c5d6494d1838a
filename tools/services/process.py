"""One server process: a folder, a log, and a life from launch to the last trace removed."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from tools.services.errors import ServiceError
from tools.services.jars import ensure_jars
from tools.services.java import find_java
from tools.services.ports import free_port
from tools.services.spawn import dismiss, spawn_guarded, wait_until_frozen

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0
PAUSE_TIMEOUT_S = 10.0
# Half the work to start, at the price of a slower server later: for tests, not for measurements.
QUICK_JVM = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
_READY_POLL_S = 0.05
_TAIL_BYTES = 32_768
_TAIL_LINES = 40

_live: set[Server] = set()


class Server(ABC):
    """A server on this machine, started from its jars, with its data in a temporary folder.

    ::

        new ── launch ──▶ launched ── wait_until_ready ──▶ running ◀── pause/resume ──▶ paused
                             ▲                                │ stop, kill
                             └────────── launch ────────── stopped        close: from everywhere

    Blocking, and not for use from several threads. ``launch`` does not wait for the server, so several
    can come up at the same time. The ports stay the same from one start to the next.
    """

    name: ClassVar[str]  # of the pom, the folder and the command line
    title: ClassVar[str]  # for people
    variable: ClassVar[str]  # names a server that already runs instead
    java_lowest: ClassVar[int] = 17
    java_highest: ClassVar[int | None] = None
    host: ClassVar[str] = "localhost"
    controllable: ClassVar[bool] = True

    def __init__(self, *, start_timeout_s: float = START_TIMEOUT_S) -> None:
        self.port = free_port()
        self.start_timeout_s = start_timeout_s
        self.started_in_s: float | None = None
        self.folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._launched_at = 0.0
        self._paused = False

    # What a kind of server supplies.

    @abstractmethod
    def _prepare(self, folder: Path, java: str, jars: Path) -> None:
        """Write the configuration and the empty data folders, once for each folder."""

    @abstractmethod
    def _command(self, folder: Path, java: str, jars: Path) -> list[str]:
        """The command that runs the server in the foreground; it must name ``folder``."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether the server does real work for a client now; never waits more than some seconds."""

    # What its owner asks.

    @property
    def address(self) -> str:
        """``host:port`` for clients."""
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process id, None while no process runs."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether the process exists; a paused one does."""
        return self._process is not None and self._process.poll() is None

    @property
    def paused(self) -> bool:
        """Whether :meth:`pause` froze it."""
        return self._paused

    @property
    def crashed(self) -> bool:
        """Whether the process ended without being asked by :meth:`stop`, :meth:`kill` or the like."""
        return self._process is not None and self._process.poll() is not None

    @property
    def log_path(self) -> Path:
        """The file with everything the server has printed, over all its starts."""
        return self._in_folder("server.log")

    def log_tail(self) -> str:
        """The last lines of the log."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - _TAIL_BYTES))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError as error:
            # The tail explains another failure, which it must not hide.
            return f"(no log: {error})"
        return "\n".join(lines[-_TAIL_LINES:]) or "(the log is empty)"

    # Its life.

    def launch(self) -> None:
        """Start the process, without waiting until it answers; on the same data when started before.

        Raises:
            MissingToolError: Java or Maven is missing.
            ServiceError: the jars could not be fetched or the data folder not be prepared.
        """
        if self.running:
            raise ServiceError(f"{self.title} is running already (process {self.pid})")
        java = find_java(
            self.title, self.variable, lowest=self.java_lowest, highest=self.java_highest
        )
        jars = ensure_jars(self.name, self.title, self.variable)
        _live.add(self)
        self._launched_at = time.monotonic()
        if self.folder is None:
            # Resolved: on macOS the temporary folder is a link, and the name must stand in the command.
            folder = Path(tempfile.mkdtemp(prefix=f"prosody-{self.name}-")).resolve()
            self.folder = folder
            try:
                self._prepare(folder, java, jars)
            except BaseException:
                # A folder half prepared cannot be started from.
                self.close()
                raise
        command = self._command(self.folder, java, jars)
        self._process, self._guard = spawn_guarded(command, self.folder, self.log_path)

    def wait_until_ready(self) -> None:
        """Return when the launched server answers.

        Raises:
            ServiceError: it ended, or did not answer within ``start_timeout_s`` seconds of its launch. The
                text holds the end of its log, which is kept; the server is ended.
        """
        deadline = self._launched_at + self.start_timeout_s
        while not self.answers():
            if not self.running:
                code = self._process.returncode if self._process is not None else None
                raise self._failure(f"{self.title} ended while starting (exit code {code})")
            if time.monotonic() > deadline:
                raise self._failure(
                    f"{self.title} did not answer on {self.address} within {self.start_timeout_s:.0f} s"
                )
            time.sleep(_READY_POLL_S)
        self.started_in_s = time.monotonic() - self._launched_at

    def start(self) -> Self:
        """:meth:`launch`, then :meth:`wait_until_ready`."""
        self.launch()
        self.wait_until_ready()
        return self

    def stop(self) -> None:
        """End the server in order (SIGTERM; SIGKILL after ``STOP_TIMEOUT_S``), keep its data."""
        if self._process is not None and self.running:
            self.resume()
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                # It had its chance.
                self._process.kill()
        self._reap()

    def kill(self) -> None:
        """End the server at once (SIGKILL), as a crash does; its data stays."""
        if self._process is not None and self.running:
            self._process.kill()
        self._reap()

    def restart(self) -> None:
        """End the server in order if it runs, start it again on the same data and ports."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the process (SIGSTOP): connections stay open and nothing answers.

        Raises:
            ServiceError: it does not run, or did not freeze within ``PAUSE_TIMEOUT_S`` seconds.
        """
        self._signal(signal.SIGSTOP)
        self._paused = True
        assert self._process is not None
        if not wait_until_frozen(self._process, PAUSE_TIMEOUT_S):
            raise ServiceError(
                f"{self.title} ended or did not freeze within {PAUSE_TIMEOUT_S:.0f} s:\n{self.log_tail()}"
            )

    def resume(self) -> None:
        """Let a paused process go on; does nothing otherwise."""
        if self._paused:
            self._signal(signal.SIGCONT)
            self._paused = False

    def close(self, *, keep_log: bool = False) -> Path | None:
        """End the process and remove its folder; may be called again.

        Returns:
            The log, when ``keep_log`` asks for it and there is one.
        """
        # Not SIGTERM: nobody reads the data any more, and an orderly end takes seconds.
        self.kill()
        folder, self.folder = self.folder, None
        _live.discard(self)
        if folder is None:
            return None
        log = folder / "server.log"
        if not keep_log or not log.exists():
            shutil.rmtree(folder, ignore_errors=True)
            return None
        for entry in folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
        return log

    def detach(self) -> None:
        """Let the server outlive this process; somebody else ends it by its process id."""
        self._dismiss_guard()
        _live.discard(self)
        if self._process is not None:
            # Not ours to wait for any more: keeps the interpreter from complaining about it.
            self._process.returncode = 0
            self._process = None
        # Nor is its folder, which close would remove.
        self.folder = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if log := self.close(keep_log=error is not None):
            print(f"{self.title}: log kept in {log}", file=sys.stderr)

    # Inner workings.

    def _in_folder(self, name: str) -> Path:
        if self.folder is None:
            raise ServiceError(f"{self.title} has no folder: it was not started, or is closed")
        return self.folder / name

    def _failure(self, what: str) -> ServiceError:
        tail = self.log_tail()
        log = self.close(keep_log=True)
        return ServiceError(f"{what}; log kept in {log}, its end:\n{tail}")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None or not self.running:
            raise ServiceError(f"{self.title} is not running, so it cannot get {number.name}")
        self._process.send_signal(number)

    def _reap(self) -> None:
        self._paused = False
        process, self._process = self._process, None
        if process is not None:
            process.wait(STOP_TIMEOUT_S)
            if process.stdin is not None:
                process.stdin.close()
        self._dismiss_guard()

    def _dismiss_guard(self) -> None:
        watcher, self._guard = self._guard, None
        if watcher is not None:
            dismiss(watcher)


_owner_pid = os.getpid()


@atexit.register
def _close_all() -> None:
    # A forked child inherits this list and must not end its parent's servers.
    if os.getpid() == _owner_pid:
        for server in list(_live):
            server.close()
