"""The halves of the core by name.

The picker in ``prosody._core`` is not asked, because it would quietly hand out the twin twice.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest

HALVES = {"cython": "c", "python": "py"}
STRUCTURES = {
    "KeyQueue": "key_queue",
    "OffsetTracker": "offset_tracker",
    "VirtualTimeHeap": "vtime_heap",
    "TimeWindow": "rolling_window",
    "OutcomeWindow": "outcome_window",
}
"""The module of each class, without the half."""
FUNCTIONS = {
    "FetchedRecord": "fetched",
    "Admission": "messages",
    "event_lines": "event_lines",
    "first_step": "messages",
    "frame_records": "many_records",
    "keep_records": "many_records",
    "key_partitions": "many_records",
    "maker": "messages",
    "read_answer": "fetched",
    "read_records": "fetched",
}
"""The module of each function, without the half; and of a class that only holds values."""


def core_class(half: str, name: str) -> Any:
    """The class ``name`` of one half; a half that is not there fails whoever asks for it."""
    return _found(half, STRUCTURES[name], name)


def core_function(half: str, name: str) -> Any:
    """The function ``name`` of one half; as for classes."""
    return _found(half, FUNCTIONS[name], name)


def _found(half: str, module: str, name: str) -> Any:
    module = f"prosody._core.{module}_{HALVES[half]}"
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as missing:
        # A failure that says what to do, and never a skip: a skip would hide the missing half.
        pytest.fail(f"the {half} half is missing, build the extensions first: {missing}")
