"""What the tests of the virtual-time heap share: both halves, made with the defaults of the options."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from tests.core.halves import HALVES

DEFAULTS: dict[str, Any] = {
    "failure_weight": 0.3,
    "max_wait": 120.0,
    "wait_weight": 200.0,
    "cache_size": 8192,
    "half_life": 120.0,
}
NORMAL, FAILURE = 0, 1


def heap_class(half: str) -> Any:
    """The class of one half; a half that is not there fails whoever asks for it."""
    try:
        module = importlib.import_module(f"prosody._core.vtime_heap_{HALVES[half]}")
    except ModuleNotFoundError as missing:
        pytest.fail(f"the {half} half is missing, build the extensions first: {missing}")
    return module.VirtualTimeHeap


def made(half: str, **given: Any) -> Any:
    """A heap of one half."""
    return heap_class(half)(**{**DEFAULTS, **given})
