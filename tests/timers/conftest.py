"""The tests of timers run on virtual time."""

from __future__ import annotations

from typing import Any

from tests.support import LOOPS


def pytest_asyncio_loop_factories() -> Any:
    """Every asyncio test of this directory runs on a loop whose clock jumps."""
    return LOOPS
