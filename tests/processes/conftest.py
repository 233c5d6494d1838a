"""A topic and a group of its own for each test, on the session's real Kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.processes.scene import Scene


@pytest.fixture
async def scene(tmp_path: Path, kafka_bootstrap: str) -> AsyncIterator[Scene]:
    made = Scene(tmp_path, kafka_bootstrap)
    try:
        await made.begin()
        yield made
    finally:
        await made.end()


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[[str, object], None]:
    """Note a measured figure: in the test's properties, and on the screen with ``-s``."""

    def note(name: str, value: object) -> None:
        record_property(name, value)
        print(f"\n{name}: {value}")

    return note
