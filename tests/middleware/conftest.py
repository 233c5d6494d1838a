"""The layers are tested one by one, on virtual time, with a partition that is only its flags."""

from __future__ import annotations

from typing import Any

from tests.support import LOOPS


def pytest_asyncio_loop_factories() -> Any:
    return LOOPS
