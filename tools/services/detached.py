"""Servers that outlive the command that started them, remembered in a state file of the user."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.services import SERVERS, Server, ServiceError
from tools.services.cache import cache_folder, locked
from tools.services.cassandra import cassandra_answers
from tools.services.guard import end_process, is_ours
from tools.services.kafka import kafka_answers

_LOCK_TIMEOUT_S = 900.0  # the first start may have jars to fetch
_CHECKS = {"kafka": kafka_answers, "cassandra": cassandra_answers}


@dataclass(frozen=True)
class Entry:
    """One detached server."""

    name: str
    pid: int
    address: str
    folder: str

    @property
    def alive(self) -> bool:
        """Whether its process still exists (and is not another one with the same id)."""
        return is_ours(self.pid, self.folder)

    @property
    def answering(self) -> bool:
        """Whether it does work for a client."""
        host, _, port = self.address.rpartition(":")
        return self.alive and _CHECKS[self.name](host, int(port))


def start_detached(names: Sequence[str]) -> list[Entry]:
    """Start those of ``names`` that do not run yet; all of them, those that ran already included.

    Raises:
        ServiceError: one could not be started; then none of the new ones is left running.
    """
    with _state_lock():
        entries = {}
        for entry in _read():
            if entry.alive:
                entries[entry.name] = entry
            else:
                # It crashed, or the machine was started anew: nobody else removes what it left.
                shutil.rmtree(entry.folder, ignore_errors=True)
        servers = [SERVERS[name]() for name in SERVERS if name in names and name not in entries]
        try:
            start_together(servers)
            for server in servers:
                entries[server.name] = _entry(server)
            _write(list(entries.values()))
            # Only now that the file knows them: until here our death would have ended them.
            for server in servers:
                server.detach()
        finally:
            close_together(servers)
    return [entries[name] for name in names]


def stop_detached(names: Sequence[str]) -> list[Entry]:
    """End those of ``names`` that were started detached, and remove their folders; returns them.

    Raises:
        ServiceError: a process did not end.
    """
    with _state_lock():
        entries = _read()
        stopped = [entry for entry in entries if entry.name in names]
        for entry in stopped:
            if not end_process(entry.pid, entry.folder):
                raise ServiceError(
                    f"process {entry.pid} of {entry.name} does not end; end it by hand"
                )
            shutil.rmtree(entry.folder, ignore_errors=True)
        _write([entry for entry in entries if entry not in stopped])
    return stopped


def list_detached() -> list[Entry]:
    """What the state file knows, dead ones included."""
    return _read()


def start_together(servers: Sequence[Server]) -> None:
    """Launch all, then wait for all; on any failure the others are left to the caller to close."""
    for server in servers:
        server.launch()
    for server in servers:
        server.wait_until_ready()


def close_together(servers: Sequence[Server]) -> None:
    """Close each; one that was detached or never launched has nothing left to close."""
    for server in servers:
        server.close()


def _entry(server: Server) -> Entry:
    if server.pid is None or server.folder is None:
        raise ServiceError(f"{server.title} ended right after its start:\n{server.log_tail()}")
    return Entry(server.name, server.pid, server.address, str(server.folder))


def _state_file() -> Path:
    return cache_folder() / "services.json"


def _state_lock() -> AbstractContextManager[None]:
    return locked(cache_folder() / "services.lock", _LOCK_TIMEOUT_S)


def _read() -> list[Entry]:
    path = _state_file()
    try:
        return [Entry(**fields) for fields in json.loads(path.read_text())]
    except FileNotFoundError:
        # Nothing was ever started.
        return []
    except (ValueError, TypeError) as error:
        raise ServiceError(
            f"{path} cannot be read ({error}); end the servers it named by hand and remove it"
        ) from None


def _write(entries: Sequence[Entry]) -> None:
    path = _state_file()
    # Renamed into place: a reader never sees half a file.
    handle, partial = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    with os.fdopen(handle, "w") as file:
        json.dump([asdict(entry) for entry in entries], file, indent=2)
    Path(partial).replace(path)
