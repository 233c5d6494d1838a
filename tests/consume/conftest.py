"""The tests of the consume path run on virtual time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import LOOPS

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_asyncio_loop_factories() -> Any:
    """Every asyncio test of this directory runs on a loop whose clock jumps."""
    return LOOPS


@pytest.fixture
def no_logs() -> Iterator[None]:
    """Hundreds of failing handlers are the point here; their log lines only cost time."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
