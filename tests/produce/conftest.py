"""The producer's tests run on virtual time and must leave no task behind."""

from __future__ import annotations

from typing import Any

from tests.consume.conftest import no_task_left
from tests.support import LOOPS

__all__ = ["no_task_left"]


def pytest_asyncio_loop_factories() -> Any:
    return LOOPS
