"""What the tests of the virtual-time heap share: both halves, made with the defaults of the options."""

from __future__ import annotations

from typing import Any

from tests.core.halves import core_class

DEFAULTS: dict[str, Any] = {
    "failure_weight": 0.3,
    "max_wait": 120.0,
    "wait_weight": 200.0,
    "cache_size": 8192,
    "half_life": 120.0,
}
NORMAL, FAILURE = 0, 1


def heap_class(half: str) -> Any:
    """The class of one half."""
    return core_class(half, "VirtualTimeHeap")


def made(half: str, **given: Any) -> Any:
    """A heap of one half."""
    return heap_class(half)(**{**DEFAULTS, **given})
