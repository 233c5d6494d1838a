"""A pytest plugin: what a test opens it must close. Tasks, threads and file descriptors left are errors.

Tasks are looked at on the test's own loop, after its fixtures have ended and before the loop closes;
threads and descriptors (sockets, pipes, files) after that, when nothing of the test is left. What
fixtures of a broader scope open, such as the real services of a session, belongs to them.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from pytest_asyncio import is_async_test

from tools.services.process import _live

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

_DESCRIPTORS = Path("/proc/self/fd")
"""Only Linux has it; elsewhere Python's warning about what was never closed has to do."""

_THREAD_END_S = 1.0
"""How long a thread that was told to end may take to be gone."""

_TURNS = 3
"""Turns of the loop for what has been told to end, but not run since."""


_REACTOR = "event_loop"
"""cassandra-driver's thread: one for the process, from its first connection to the end."""


class Held(NamedTuple):
    """What the process holds."""

    threads: frozenset[threading.Thread]
    descriptors: frozenset[tuple[int, str]]
    """Number and target: a number alone is soon used again, for something else."""

    def plus(self, other: Held) -> Held:
        """What is in either."""
        return Held(self.threads | other.threads, self.descriptors | other.descriptors)

    def beyond(self, other: Held) -> Held:
        """What is not in ``other``."""
        return Held(self.threads - other.threads, self.descriptors - other.descriptors)

    def __str__(self) -> str:
        threads = sorted(f"thread {thread.name!r}" for thread in self.threads)
        return ", ".join(threads + [f"fd {n} {target}" for n, target in sorted(self.descriptors)])


def held() -> Held:
    """What the process holds now."""
    descriptors = set()
    if _DESCRIPTORS.exists():
        for name in os.listdir(_DESCRIPTORS):  # noqa: PTH208  # half the time of a Path's, twice a test
            try:
                descriptors.add((int(name), os.readlink(f"{_DESCRIPTORS}/{name}")))  # noqa: PTH115
            except FileNotFoundError:
                continue  # the one that the list itself was read with
    return Held(frozenset(threading.enumerate()), frozenset(descriptors))


def left_since(before: Held) -> Held:
    """What is held that was not held before; waits for threads that are about to end."""
    for thread in held().threads - before.threads:
        if thread is not threading.current_thread() and thread.name != _REACTOR:
            thread.join(_THREAD_END_S)
    return held().beyond(before)


def not_of_the_test(left: Held) -> Held:
    """What is held for longer than a test by right, whichever test was there when it began."""
    threads = frozenset(thread for thread in left.threads if thread.name == _REACTOR)
    # Its descriptors are there from its first connection on; the thread ends when there is none, and is
    # started again with the next.
    driver = sys.modules.get("cassandra.io.libevreactor")
    reactor = getattr(driver, "_global_loop", None) is not None
    # The pipes by which a service is ended, in a test that has it started again.
    popens = [p for server in _live for p in (server._process, server._guard) if p is not None]
    pipes = [pipe for popen in popens for pipe in (popen.stdin, popen.stdout, popen.stderr)]
    numbers = {pipe.fileno() for pipe in pipes if pipe is not None and not pipe.closed}
    return Held(
        threads,
        frozenset(
            (number, target)
            for number, target in left.descriptors
            if number in numbers or (reactor and target.startswith("anon_inode:[event"))
        ),
    )


async def tasks_left(before: set[asyncio.Task[object]]) -> set[asyncio.Task[object]]:
    """The unfinished tasks of this loop that were not there before, without the one that asks."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    return asyncio.all_tasks() - before - {asyncio.current_task()}


_BEFORE = pytest.StashKey[Held]()
"""What was held before the test."""
_EXEMPT = pytest.StashKey[Held]()
"""What fixtures of a broader scope have opened."""


@pytest.fixture
async def no_task_is_left() -> AsyncIterator[None]:
    """The part of the guard that needs the loop; each asynchronous test has it as its first fixture."""
    before = asyncio.all_tasks()
    yield
    left = await tasks_left(before)
    assert not left, f"tasks left behind: {left}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_async_test(item):
            # Not an autouse fixture: that one would make a loop for every synchronous test too.
            names: list[str] = item.fixturenames
            names.insert(0, no_task_is_left.__name__)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_EXEMPT] = Held(frozenset(), frozenset())


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    if fixturedef.scope == "function":
        return (yield)
    before = held()
    try:
        return (yield)
    finally:
        stash = request.config.stash
        stash[_EXEMPT] = stash[_EXEMPT].plus(held().beyond(before))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    item.stash[_BEFORE] = held()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    result = yield
    left = left_since(item.stash[_BEFORE].plus(item.config.stash[_EXEMPT]))
    left = left.beyond(not_of_the_test(left))
    if left.threads or left.descriptors:
        pytest.fail(f"left behind by {item.nodeid}: {left}", pytrace=False)
    return result
