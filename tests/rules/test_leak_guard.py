"""The leak guard can go red: for each kind of leak, and only for the test that leaks."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tests.leaks import held, left_since, tasks_left
from tests.support import run_virtual

if TYPE_CHECKING:
    from pathlib import Path

LEAKS = """
import asyncio, socket, threading
import pytest

kept = []

@pytest.fixture(scope="session")
def service():
    kept.append(socket.socket())
    yield kept[-1]

@pytest.fixture
async def helper():
    task = asyncio.create_task(asyncio.Event().wait())
    yield
    task.cancel()

def test_clean(service):
    with socket.socket():
        pass

async def test_clean_async(helper, request):
    request.getfixturevalue("service")
    await asyncio.get_running_loop().run_in_executor(None, len, ())

def test_socket():
    kept.append(socket.socket())

def test_file(tmp_path):
    kept.append((tmp_path / "f").open("w"))

def test_thread():
    release = threading.Event()
    kept.append(release)
    threading.Thread(target=release.wait, daemon=True, name="stray").start()

async def test_task():
    kept.append(asyncio.create_task(asyncio.Event().wait(), name="stray"))

async def test_after_them():
    pass
"""


@pytest.mark.skipif(not held().descriptors, reason="descriptors are counted where /proc tells them")
def test_each_kind_of_leak_is_an_error_of_its_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    root: Path = request.config.rootpath
    monkeypatch.setenv("PYTHONPATH", str(root))
    pytester.makeconftest('pytest_plugins = ["tests.leaks"]')
    pytester.makeini(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    pytester.makepyfile(test_leaks=LEAKS)
    run = pytester.runpytest_subprocess("-rE", "-p", "no:cacheprovider", timeout=60)
    run.assert_outcomes(passed=7, errors=4)
    told = {
        line.split(" - ")[0].rpartition("::")[2]
        for line in run.outlines
        if line.startswith("ERROR ")
    }
    assert told == {"test_socket", "test_file", "test_thread", "test_task"}


def test_a_thread_that_is_about_to_end_is_waited_for() -> None:
    before = held()
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="slow to end")
    thread.start()
    assert thread in held().beyond(before).threads
    threading.Timer(0.05, release.set).start()
    assert not left_since(before).threads


def test_a_socket_is_seen() -> None:
    before = held()
    with socket.socket() as opened:
        if before.descriptors:
            assert [n for n, _ in left_since(before).descriptors] == [opened.fileno()]
    assert not left_since(before).descriptors


def test_a_task_is_seen_and_one_that_ends_at_once_is_not() -> None:
    async def look() -> tuple[set[str], set[str]]:
        before = asyncio.all_tasks()
        stray = asyncio.create_task(asyncio.Event().wait(), name="stray")
        ended = asyncio.create_task(asyncio.sleep(0), name="ends")
        seen = {task.get_name() for task in await tasks_left(before)}
        stray.cancel()
        after = {task.get_name() for task in await tasks_left(before)}
        assert ended.done()
        return seen, after

    assert run_virtual(look()) == ({"stray"}, set())
