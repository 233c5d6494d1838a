"""The pure half of the virtual-time heap with one fault put into it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

# In the order in which they import one another.
PARTS = (
    "idle_keys_py",
    "staircase_py",
    "short_line_py",
    "waiting_line_py",
    "class_account_py",
    "decay_clock_py",
    "vtime_heap_py",
)


def mutant(part: str, *edits: tuple[str, str], short: int | None = None) -> Any:
    """``VirtualTimeHeap`` with each of these texts, which must be there once, put in another's place.

    :param short: how many may wait in a short line, if that differs; with 0 there are only long ones.
    """
    assert part in PARTS
    with mock.patch.dict(sys.modules):
        for name in PARTS:
            full = f"prosody._core.{name}"
            source = Path(str(importlib.import_module(full).__file__)).read_text(encoding="utf-8")
            for old, new in edits if name == part else ():
                assert source.count(old) == 1, f"{source.count(old)} places for {old!r}"
                source = source.replace(old, new)
            module = ModuleType(full)
            sys.modules[full] = module
            exec(compile(source, f"mutant of {name}", "exec"), vars(module))
            if short is not None and name == "short_line_py":
                vars(module)["SHORT"] = short
            if short is not None and name == "waiting_line_py":
                vars(module)["FEWEST"] = short // 4
    return vars(module)["VirtualTimeHeap"]
