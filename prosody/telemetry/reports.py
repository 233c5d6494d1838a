"""What is reported beside a message's way: timers that are set or cancelled, and what was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.broker.protocol import TopicPartition
from prosody.model.trace import carried
from prosody.telemetry.events import (
    MESSAGE_SENT,
    SENT,
    TIMER_CANCELLED,
    TIMER_SCHEDULED,
    TIMERS,
    traced,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prosody.broker.protocol import Headers, SentRecord
    from prosody.runtime import Runtime
    from prosody.stores.protocol import TimerKind, Trace
    from prosody.telemetry.buffer import Buffer


class SentReports:
    """Reports what the producer has sent."""

    def __init__(self, buffer: Buffer, runtime: Runtime) -> None:
        self._add = buffer.add
        self._monotonic = runtime.monotonic

    def sent(self, record: SentRecord, key: bytes | None, headers: Headers) -> None:
        """The broker has acknowledged a record."""
        text = "" if key is None else key.decode("utf-8", "replace")
        place = TopicPartition(*record[:2])
        more = traced(carried(headers))
        self._add((MESSAGE_SENT, self._monotonic(), SENT, place, record.offset, text, more))


class TimerReports:
    """Reports what is done to the timers of one partition, once the store has it."""

    def __init__(
        self,
        buffer: Buffer,
        place: TopicPartition,
        runtime: Runtime,
        trace: Callable[[], Trace],
    ) -> None:
        """:param trace: the W3C headers of the present span."""
        self._add = buffer.add
        self._buffer = buffer
        self._place = place
        self._monotonic = runtime.monotonic
        self._trace = trace

    def scheduled(self, kind: TimerKind, key: str, time: int, trace: Trace) -> None:
        """A timer was stored; ``trace`` is kept with it."""
        self._buffer.before_look()  # that the handler was called is told before what it does
        now, more = self._monotonic(), traced(trace)
        self._add((TIMER_SCHEDULED, now, TIMERS[kind], self._place, time, key, more))

    def cancelled(self, kind: TimerKind, key: str, times: Iterable[int]) -> None:
        """Timers were removed before they fired."""
        self._buffer.before_look()
        now, more = self._monotonic(), traced(self._trace())
        for time in times:
            self._add((TIMER_CANCELLED, now, TIMERS[kind], self._place, time, key, more))
