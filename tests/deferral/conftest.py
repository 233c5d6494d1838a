"""Deferral is tested on virtual time, with stores in memory."""

from __future__ import annotations

from typing import Any

from tests.support import LOOPS


def pytest_asyncio_loop_factories() -> Any:
    return LOOPS
