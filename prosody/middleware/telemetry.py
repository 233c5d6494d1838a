"""Reports the life of messages and timers: the innermost layer, around the handler itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.model.message import Timer
from prosody.model.outcome import SUCCESS, Kind, Outcome
from prosody.model.run import WorkClass
from prosody.model.times import seconds_from_utc
from prosody.stores.protocol import TimerKind
from prosody.telemetry.buffer import CROWDED_VALUES, LONG_CHARS
from prosody.telemetry.events import (
    DEMANDS,
    MESSAGE,
    MESSAGE_DISPATCHED,
    MESSAGE_FAILED,
    MESSAGE_SUCCEEDED,
    TIMER_DISPATCHED,
    TIMER_FAILED,
    TIMER_SUCCEEDED,
    TIMERS,
    failure,
    traced,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from prosody.middleware.base import Call
    from prosody.model.run import Run
    from prosody.observe.handler_spans import HandlerSpans
    from prosody.runtime import Runtime
    from prosody.telemetry.buffer import Buffer
    from prosody.telemetry.events import Event


class Telemetry:
    """Puts events into the buffer; whoever writes them takes them from there.

    A message that is handled well costs one entry and one reading of the clock. That its handler is called
    is told with the time of its permit, after which it waits for nothing; and when it has ended, unless
    the emitter looks before that: then it is told what runs. So both are in the topic as soon as if each
    had been told at once.
    """

    def __init__(
        self,
        buffer: Buffer,
        runtime: Runtime,
        spans: HandlerSpans | None,
        running: Callable[[], Iterable[Run]],
    ) -> None:
        """
        :param spans: whose span events name while there is a tracer.
        :param running: the runs that are in their handlers.
        """
        self._running = running
        self.told: set[Run] = set()
        """Attempts under way of which it is told that they have begun, or will be with their span."""
        buffer.before_look = self.tell_running
        self._add = buffer.add
        self.values = buffer.values
        self.crowded = buffer.crowded
        self._monotonic = runtime.monotonic
        self.spans = spans
        self._begun: dict[Run, _Begun] = {}
        """Attempts whose span is about to begin, or has; only while there is a tracer."""
        if spans is not None:
            spans.opened = self._opened

    def wrap(self, inner: Call) -> Call:
        monotonic = self._monotonic
        unusual = self.unusual
        ordinary = self._attempt
        ended = self.ended

        async def reported(run: Run) -> Outcome:
            if unusual(run):
                return await ordinary(run, inner)
            outcome = await inner(run)
            ended(run, outcome, monotonic())
            return outcome

        return reported

    def unusual(self, run: Run) -> bool:
        """Whether the attempt of ``run`` that is about to begin is reported step by step."""
        return (
            run.record is None or run.event is None or (self.spans is not None and self.spans.live)
        )

    def ended(self, run: Run, outcome: Outcome, now: float) -> None:
        """Report an attempt that was not ``unusual`` at its beginning."""
        told = self.told
        if outcome is SUCCESS and len(run.key) <= LONG_CHARS and (not told or run not in told):
            values = self.values
            offset = run.record.offset  # type: ignore[union-attr]  # else it would be unusual
            tp = run.partition.topic_partition
            values.extend((DEMANDS[run.work_class], run.began, MESSAGE, tp, offset, run.key, now))
            if len(values) >= CROWDED_VALUES:
                self.crowded()
            return
        begun = _attempt_of(run)
        if run in told:
            told.discard(run)
        else:
            self._add(begun.dispatched(""))
        self._add(begun.ended(outcome, now))

    def retries(self, redeliver: Callable[[Run], Awaitable[Outcome]]) -> Call:
        """Put around what a retry timer does: the timer's own events. Those of what is run again are
        reported like any other."""

        async def retried(run: Run) -> Outcome:
            timer = run.timer
            assert timer is not None, "a retry timer made this run"
            # As in the reference: whatever is deferred counts as failed before.
            begun = _Begun(run, TIMERS[timer.kind], timer.time, WorkClass.FAILURE)
            trace = traced(timer.trace)
            self._add(begun.dispatched(trace))
            outcome = await redeliver(run)
            if outcome.kind is not Kind.ABANDONED:
                self._add(begun.ended(outcome, self._monotonic()))
            return outcome

        return retried

    def tell_running(self) -> None:
        """Tell of the attempts under way that they have begun."""
        for run in self._running():
            if run not in self.told:
                self.told.add(run)
                self._add(_attempt_of(run).dispatched(""))

    async def _attempt(self, run: Run, inner: Call) -> Outcome:
        """Any attempt: of a message or a timer, with a span or without."""
        if run.event is None:
            return await inner(run)  # undecodable: there is no handler to be called
        begun = _attempt_of(run)
        self.told.add(run)
        if self.spans is not None and self.spans.live:
            self._begun[run] = begun  # told with its span, which is there in a moment
        else:
            self._add(begun.dispatched(""))
        try:
            outcome = await inner(run)
        finally:
            self._begun.pop(run, None)
            self.told.discard(run)
        if begun.trace is None:
            self._add(begun.dispatched(""))  # its span could not be made
        self._add(begun.ended(outcome, self._monotonic()))
        return outcome

    def _opened(self, run: Run, trace: Mapping[str, str]) -> None:
        """The handler's span has begun; ``trace`` names it."""
        begun = self._begun.get(run)
        if begun is not None:
            self._add(begun.dispatched(traced(trace)))


class _Begun:
    """An attempt under way, or what a retry timer does."""

    __slots__ = ("_at", "_demand", "_is_timer", "_subject", "trace")

    def __init__(self, run: Run, layout: str, number: int, work_class: WorkClass) -> None:
        self._at = run.began
        self._is_timer = layout is not MESSAGE
        self._subject = layout, run.partition.topic_partition, number, run.key
        self._demand = DEMANDS[work_class]
        self.trace: str | None = None
        """The fields that name its span; None before it was told that it is dispatched."""

    def dispatched(self, trace: str) -> Event:
        self.trace = trace
        head = TIMER_DISPATCHED if self._is_timer else MESSAGE_DISPATCHED
        return head, self._at, *self._subject, self._demand + trace

    def ended(self, outcome: Outcome, now: float) -> Event:
        if outcome.kind is Kind.SUCCESS:
            head = TIMER_SUCCEEDED if self._is_timer else MESSAGE_SUCCEEDED
            more = self._demand
        else:
            head = TIMER_FAILED if self._is_timer else MESSAGE_FAILED
            more = self._demand + _failure(outcome)
        return head, now, *self._subject, more + (self.trace or "")


def _attempt_of(run: Run) -> _Begun:
    event = run.event
    if isinstance(event, Timer):
        due = seconds_from_utc(event.time)
        return _Begun(run, TIMERS[TimerKind.APPLICATION], due, run.work_class)
    assert run.record is not None, "a message or excise message comes of a record"
    return _Begun(run, MESSAGE, run.record.offset, run.work_class)


def _failure(outcome: Outcome) -> str:
    category = "permanent" if outcome.kind is Kind.PERMANENT else "transient"
    return failure(category, outcome.error)
