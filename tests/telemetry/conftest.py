"""Telemetry on a clock that jumps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support import LOOPS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return LOOPS
