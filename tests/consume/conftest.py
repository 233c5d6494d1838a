"""The tests of the consume path run on virtual time and must leave no task behind."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import LOOPS, other_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


def pytest_asyncio_loop_factories() -> Any:
    """Every asyncio test of this directory runs on a loop whose clock jumps."""
    return LOOPS


@pytest.fixture(autouse=True)
async def no_task_left() -> AsyncIterator[None]:
    """A test that leaves a task behind has found a leak, or is one."""
    yield
    for _ in range(3):  # what has been told to end may need a turn to do so
        await asyncio.sleep(0)
    left = other_tasks()
    assert not left, f"tasks left behind: {left}"


@pytest.fixture
def no_logs() -> Iterator[None]:
    """Hundreds of failing handlers are the point here; their log lines only cost time."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
