"""The pure core, and the one place that picks its half.

Each structure exists twice, compiled (``*_c``) and in Python (``*_py``), with the same answers. All
of them come from the same half: where one compiled module is missing, none is used.

``IMPLEMENTATION``   ``"cython"`` or ``"python"``: the half that runs
``FALLBACK_REASON``  why the Python half runs; ``None`` when the compiled one does

``PROSODY_PURE_PYTHON=1`` in the environment, read once at import, forces the Python half.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from prosody._core import (
        protocols,
        protocols_events,
        protocols_fetched,
        protocols_messages,
        protocols_qos,
    )

__all__ = [
    "FALLBACK_REASON",
    "IMPLEMENTATION",
    "Admission",
    "FetchedRecord",
    "KeyQueue",
    "OffsetTracker",
    "OutcomeWindow",
    "TimeWindow",
    "VirtualTimeHeap",
    "event_lines",
    "first_step",
    "frame_records",
    "keep_records",
    "key_partitions",
    "maker",
    "read_answer",
    "read_records",
]


class _Half(NamedTuple):
    implementation: Literal["cython", "python"]
    fallback_reason: str | None
    key_queue: type[protocols.KeyQueue]
    offset_tracker: type[protocols.OffsetTracker]
    virtual_time_heap: type[protocols_qos.VirtualTimeHeap]
    time_window: type[protocols_qos.TimeWindow]
    outcome_window: type[protocols_qos.OutcomeWindow]
    fetched_record: type[protocols_fetched.FetchedRecord]
    read_answer: protocols_fetched.ReadAnswer
    read_records: protocols_fetched.ReadRecords
    event_lines: protocols_events.EventLines
    frame_records: protocols_events.FrameRecords
    keep_records: protocols_events.KeepRecords
    key_partitions: protocols_events.KeyPartitions
    admission: type[protocols_messages.Admission]
    first_step: protocols_messages.FirstStep
    maker: protocols_messages.MakerOf


def _compiled() -> _Half:
    from prosody._core.event_lines_c import event_lines
    from prosody._core.fetched_c import FetchedRecord, read_answer, read_records
    from prosody._core.key_queue_c import KeyQueue
    from prosody._core.many_records_c import frame_records, keep_records, key_partitions
    from prosody._core.messages_c import Admission, first_step, maker
    from prosody._core.offset_tracker_c import OffsetTracker
    from prosody._core.outcome_window_c import OutcomeWindow
    from prosody._core.rolling_window_c import TimeWindow
    from prosody._core.vtime_heap_c import VirtualTimeHeap

    return _Half(
        "cython", None, KeyQueue, OffsetTracker, VirtualTimeHeap, TimeWindow, OutcomeWindow,
        FetchedRecord, read_answer, read_records, event_lines, frame_records, keep_records, key_partitions,
        Admission, first_step, maker,
    )  # fmt: skip


def _pure(reason: str) -> _Half:
    from prosody._core.event_lines_py import event_lines
    from prosody._core.fetched_py import FetchedRecord, read_answer, read_records
    from prosody._core.key_queue_py import KeyQueue
    from prosody._core.many_records_py import frame_records, keep_records, key_partitions
    from prosody._core.messages_py import Admission, first_step, maker
    from prosody._core.offset_tracker_py import OffsetTracker
    from prosody._core.outcome_window_py import OutcomeWindow
    from prosody._core.rolling_window_py import TimeWindow
    from prosody._core.vtime_heap_py import VirtualTimeHeap

    return _Half(
        "python", reason, KeyQueue, OffsetTracker, VirtualTimeHeap, TimeWindow, OutcomeWindow,
        FetchedRecord, read_answer, read_records, event_lines, frame_records, keep_records, key_partitions,
        Admission, first_step, maker,
    )  # fmt: skip


def _pick() -> _Half:
    if os.environ.get("PROSODY_PURE_PYTHON", "").strip().lower() in {"1", "true"}:
        return _pure("PROSODY_PURE_PYTHON asks for it")
    try:
        return _compiled()
    # Not compiled on this machine, or compiled for another Python: the twin gives the same answers.
    except ImportError as error:
        return _pure(
            f"a compiled module cannot be imported ({error}); install a C compiler and reinstall "
            "prosody-asyncio with PROSODY_REQUIRE_EXTENSIONS=1 to see why the build fails"
        )


_half = _pick()
IMPLEMENTATION = _half.implementation
FALLBACK_REASON = _half.fallback_reason
KeyQueue = _half.key_queue
OffsetTracker = _half.offset_tracker
VirtualTimeHeap = _half.virtual_time_heap
TimeWindow = _half.time_window
OutcomeWindow = _half.outcome_window
FetchedRecord = _half.fetched_record
event_lines = _half.event_lines
frame_records = _half.frame_records
keep_records = _half.keep_records
key_partitions = _half.key_partitions
Admission = _half.admission
first_step = _half.first_step
maker = _half.maker
read_answer = _half.read_answer
read_records = _half.read_records
