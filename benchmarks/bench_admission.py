"""What every message needs: admission, objects made, a handler's first step; both halves.

A benchmark takes 1,000 messages, so milliseconds shown are microseconds for one.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from prosody._core import (
    fetched_c,
    fetched_py,
    key_queue_c,
    key_queue_py,
    messages_c,
    messages_py,
    offset_tracker_c,
    offset_tracker_py,
)
from prosody.broker.protocol import TopicPartition
from prosody.consume.decode import MESSAGE, SOURCE_SYSTEM, decode_json
from prosody.consume.inbox import RUN

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

MESSAGES = 1_000
PLACE = TopicPartition("orders", 0)
HOLDER: Any = SimpleNamespace(number=0)


class Half(NamedTuple):
    fetched: Any
    messages: Any
    queue: Any
    tracker: Any


both_halves = pytest.mark.parametrize(
    "half",
    [
        Half(fetched_c, messages_c, key_queue_c, offset_tracker_c),
        Half(fetched_py, messages_py, key_queue_py, offset_tracker_py),
    ],
    ids=["cython", "python"],
)


def record(half: Half, offset: int) -> Any:
    fetched = SimpleNamespace(
        offset=offset, timestamp=1_000, key=b"key-%d" % offset,
        value=b'{"n": %d, "text": "hello"}' % offset, headers=((SOURCE_SYSTEM, b"shop"),),
    )  # fmt: skip
    return half.fetched.FetchedRecord(PLACE, fetched)


@both_halves
def test_admit(benchmark: BenchmarkFixture, half: Half) -> None:
    """Records with a key each, from their bytes into the key queue."""
    records = [record(half, offset) for offset in range(MESSAGES)]

    @benchmark
    def admitted() -> Any:
        tracker, queue = half.tracker.OffsetTracker(), half.queue.KeyQueue()
        admission = half.messages.Admission(
            HOLDER,
            track=tracker.admit,
            done=tracker.complete,
            push=queue.push,
            ready=lambda _: None,
            decode=decode_json,
            message=half.messages.maker(*MESSAGE),
            run=half.messages.maker(*RUN),
            mark=(SOURCE_SYSTEM, b"us"),
            allows=None,
            identify=lambda _: None,
        )
        return admission.admit(records, 0, MESSAGES, MESSAGES, -1, 0.0)

    assert admitted == (MESSAGES, 0)


@both_halves
def test_make_a_message(benchmark: BenchmarkFixture, half: Half) -> None:
    make = half.messages.maker(*MESSAGE)

    @benchmark
    def message() -> Any:
        for offset in range(MESSAGES):
            made = make("orders", 0, offset, 1_000, "k", None)
        return made

    assert message.offset == MESSAGES - 1


@both_halves
def test_first_step(benchmark: BenchmarkFixture, half: Half) -> None:
    """Of a handler that does nothing."""

    async def handler(_: object) -> None:
        pass

    @benchmark
    def run() -> None:
        step = half.messages.first_step
        for _ in range(MESSAGES):
            step(handler(None))
