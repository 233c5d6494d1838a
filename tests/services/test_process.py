"""What the starter does around a server process, with a server that only sleeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.sleeper import Sleeper, without_java
from tools.services import ServiceError, detached, free_port, process
from tools.services.guard import end_process, is_ours

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="servers are started on Linux and macOS only"
)


@pytest.fixture
def sleeper(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sleeper]:
    for name in ("find_java", "ensure_jars"):
        monkeypatch.setattr(process, name, getattr(process, name))  # put back afterwards
    without_java()
    server = Sleeper(start_timeout_s=20.0)
    yield server
    server.close()


def wait_until_gone(pid: int, folder: str, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while is_ours(pid, folder) or Path(folder).exists():
        assert time.monotonic() < deadline, f"process {pid} or its folder {folder} is still there"
        time.sleep(0.02)


def test_ports_are_free_and_never_the_same_twice() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    # Above lies the range from which the kernel serves outgoing connections.
    assert all(1024 < port < 32768 for port in ports)


def test_data_and_port_survive_stop_and_kill_and_close_removes_all(sleeper: Sleeper) -> None:
    sleeper.start()
    folder, port, first = sleeper.folder, sleeper.port, sleeper.pid
    assert folder is not None
    (folder / "data" / "kept").touch()
    sleeper.restart()
    assert sleeper.pid != first
    sleeper.kill()
    assert not sleeper.running
    assert not sleeper.crashed
    sleeper.start()
    assert (sleeper.folder, sleeper.port) == (folder, port)
    assert (folder / "data" / "kept").exists()
    last = sleeper.pid
    assert last is not None
    assert sleeper.close() is None
    wait_until_gone(last, str(folder))


def test_a_paused_server_can_be_stopped(sleeper: Sleeper) -> None:
    sleeper.start()
    sleeper.pause()
    assert sleeper.paused
    sleeper.stop()
    assert not sleeper.running
    with pytest.raises(ServiceError, match="not running"):
        sleeper.pause()


def test_a_server_that_ends_while_starting_says_so_with_its_log(sleeper: Sleeper) -> None:
    sleeper.script = "import sys; print('no disk left'); sys.exit(3)"
    with pytest.raises(
        ServiceError, match=r"(?s)exit code 3.*log kept in (\S+),.*no disk left"
    ) as failure:
        sleeper.start()
    log = Path(str(failure.value).split("log kept in ")[1].split(",")[0])
    assert "no disk left" in log.read_text()
    assert not (log.parent / "data").exists()
    log.unlink()
    log.parent.rmdir()


def test_a_server_that_never_answers_is_ended_at_its_deadline(sleeper: Sleeper) -> None:
    sleeper.script = "import time; print('hanging', flush=True); time.sleep(300)"
    sleeper.start_timeout_s = 1.0
    sleeper.launch()
    pid, folder = sleeper.pid, sleeper.folder
    assert pid is not None
    assert folder is not None
    with pytest.raises(ServiceError, match="did not answer on localhost:"):
        sleeper.wait_until_ready()
    assert not is_ours(pid, str(folder))
    (folder / "server.log").unlink()
    folder.rmdir()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_server_outlives_its_parent(number: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.services.sleeper", "300"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with parent:
        assert parent.stdout is not None
        pid, folder = parent.stdout.readline().split()
        try:
            assert is_ours(int(pid), folder)
            parent.send_signal(number)
            parent.wait(10)
            wait_until_gone(int(pid), folder)
        finally:
            parent.kill()
            end_process(int(pid), folder)


def test_a_forked_child_that_exits_does_not_end_its_parents_server(sleeper: Sleeper) -> None:
    # In a process of its own: pytest does not like to be forked.
    script = (
        "import os, sys\n"
        "from tests.services import sleeper\n"
        "sleeper.without_java()\n"
        "server = sleeper.Sleeper().start()\n"
        "child = os.fork()\n"
        "if child == 0: sys.exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(server.running, server.folder.exists())\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert answer.stdout.split() == ["True", "True"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "prosody-asyncio"
    folder.mkdir()
    return folder


def test_detached_servers_are_started_once_and_ended_by_process_id(
    sleeper: Sleeper, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detached, "SERVERS", {"sleeper": Sleeper})
    [entry] = detached.start_detached(["sleeper"])
    try:
        assert entry.alive
        assert detached.start_detached(["sleeper"]) == [entry]
        assert detached.list_detached() == [entry]
        assert detached.stop_detached(["sleeper"]) == [entry]
        wait_until_gone(entry.pid, entry.folder)
        assert detached.list_detached() == []
    finally:
        end_process(entry.pid, entry.folder)
        # The child of this very test process, which stop treated as a stranger.
        os.waitpid(entry.pid, 0)


def test_stop_leaves_a_newcomer_with_the_same_process_id_alone(cache: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as newcomer:
        entry = {
            "name": "kafka",
            "pid": newcomer.pid,
            "address": "localhost:1",
            "folder": str(cache / "prosody-kafka-gone"),
        }
        (cache / "services.json").write_text(json.dumps([entry]))
        detached.stop_detached(["kafka"])
        assert newcomer.poll() is None
        newcomer.kill()
    assert detached.list_detached() == []
