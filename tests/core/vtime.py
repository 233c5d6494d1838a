"""What the tests of the virtual-time heap share: both halves, made with the defaults of the options."""

from __future__ import annotations

from functools import cache
from typing import Any

from tests.core.halves import HALVES, core_class
from tests.core.vtime_mutant import mutant

DEFAULTS: dict[str, Any] = {
    "failure_weight": 0.3,
    "max_wait": 120.0,
    "wait_weight": 200.0,
    "cache_size": 8192,
    "half_life": 120.0,
}
NORMAL, FAILURE = 0, 1

LONG_LINES = "python, long lines"
"""The pure half that has no short lines, so that long ones are seen with little in them too."""
SIDES = [*HALVES, LONG_LINES]


@cache
def _with_long_lines() -> Any:
    return mutant("vtime_heap_py", short=0)


def heap_class(half: str) -> Any:
    """The class of one half."""
    return _with_long_lines() if half == LONG_LINES else core_class(half, "VirtualTimeHeap")


def made(half: str, **given: Any) -> Any:
    """A heap of one half."""
    return heap_class(half)(**{**DEFAULTS, **given})
