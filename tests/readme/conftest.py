"""Where the README's examples run: mock mode, an empty broker, no variable of the caller's."""

from __future__ import annotations

import os

import pytest

from prosody.broker.memory import MemoryCluster


@pytest.fixture(autouse=True)
def _mock_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in os.environ:
        if variable.startswith("PROSODY_") and variable != "PROSODY_PURE_PYTHON":
            monkeypatch.delenv(variable)
    monkeypatch.setenv("PROSODY_MOCK", "true")
    MemoryCluster.reset_shared()
