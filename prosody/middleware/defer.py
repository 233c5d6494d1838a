"""Stores what failed for later, and what comes behind it, so that the partition goes on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from prosody.deferral.delays import delay_s, timer_second
from prosody.errors import StoreError
from prosody.model.fields import fields
from prosody.model.outcome import SUCCESS, Kind, Outcome, Refusal
from prosody.stores.protocol import Deferred, DeferredKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from prosody.broker.protocol import Record
    from prosody.config.options_qos import DeferOptions
    from prosody.deferral.deferrals import Deferrals
    from prosody.deferral.gate import Gate
    from prosody.middleware.base import Call
    from prosody.model.run import Run
    from prosody.observe.storm import Storms
    from prosody.runtime import Runtime

_log = logging.getLogger("prosody.deferral")


class Clock(Protocol):
    """Who has just read the clock: the scheduler, when an attempt ended."""

    latest: float


class Postponed(Outcome):
    """A deferred event was not tried: it stays deferred, until a time on the monotonic clock."""

    __slots__ = ("until",)

    def __init__(self, error: BaseException | None, until: float) -> None:
        super().__init__(Kind.DEFERRED, error)
        self.until = until


class Defer:
    """Defers messages and application timers; within Retry, around Monopolization.

    * An event whose key has deferred work of its kind joins that, whatever the gate says. If it cannot
      be stored, that is a transient failure without an attempt: Retry brings it here again, and nothing
      of the key overtakes.
    * An event that failed transiently, or was refused, is deferred if the gate allows it and the store
      takes it; else Retry tries it again in place.
    * An event that was deferred before and fails again stays so: ``Redelivery`` does the rest.
    """

    def __init__(
        self,
        options: DeferOptions,
        gate: Gate,
        clock: Clock,
        runtime: Runtime,
        storms: Storms,
        remember: Callable[[Record], None] | None = None,
    ) -> None:
        """:param remember: is given each deferred record, which will be loaded again."""
        self.counts = options.defer_enabled
        self._base_s = options.defer_base
        self._max_s = options.defer_max_delay
        self.gate = gate
        self._clock = clock
        self._runtime = runtime
        self._remember = remember
        self._storm = storms.of(_log)
        self._store_storm = storms.of(_log)
        self.deferred = 0
        """Events that began a queue."""
        self.appended = 0
        """Events that joined one."""

    def wrap(self, inner: Call) -> Call:
        ended = self.ended
        succeeded = self.succeeded
        append = self._append
        of_timer = self._of_timer
        messages = DeferredKind.MESSAGE

        async def deferring(run: Run) -> Outcome:
            deferrals = run.partition.deferrals
            if deferrals is None:
                return await inner(run)
            if run.timer is None:
                if deferrals.message_hashes and deferrals.holds(messages, run.key):
                    joined = await append(run, messages, deferrals)
                    if joined is not None:
                        return joined
                outcome = await inner(run)
                if outcome is SUCCESS and succeeded(run, deferrals):
                    return outcome
                return await ended(run, messages, outcome, deferrals)
            return await of_timer(run, inner, deferrals)

        return deferring

    def succeeded(self, run: Run, deferrals: Deferrals) -> bool:
        """A message was handled well. Whether that was all; else ``ended`` is to be told of it."""
        gate = self.gate
        if gate.closed or deferrals.uncertain.events:
            return False
        if run.attempt == 1 and self.counts:
            gate.window.record(False, self._clock.latest)
        return True

    async def _of_timer(self, run: Run, inner: Call, deferrals: Deferrals) -> Outcome:
        """A run that a timer made: the application's own, or a retry timer, for what it stands for now."""
        if run.redelivered:
            return self._again(run, await inner(run))
        timers = DeferredKind.TIMER
        if deferrals.timer_hashes and deferrals.holds(timers, run.key):
            joined = await self._append(run, timers, deferrals)
            if joined is not None:
                return joined
        return await self.ended(run, timers, await inner(run), deferrals)

    def _again(self, run: Run, outcome: Outcome) -> Outcome:
        """What has become of an event that is deferred already."""
        refused = isinstance(outcome, Refusal)
        if self.counts and not refused:
            self._count(run, outcome.kind)
        if outcome.kind is not Kind.TRANSIENT:
            return outcome
        if isinstance(outcome, Refusal):
            return Postponed(outcome.error, outcome.until)
        return Outcome(Kind.DEFERRED, outcome.error)

    async def ended(
        self, run: Run, kind: DeferredKind, outcome: Outcome, deferrals: Deferrals
    ) -> Outcome:
        """What is to become of an event whose attempt has ended."""
        refused = isinstance(outcome, Refusal)
        if self.counts and not refused:
            self._count(run, outcome.kind)
        if outcome.kind is Kind.TRANSIENT:
            if not self.counts or not run.partition.running:
                return outcome
            if self.gate.allows():
                return await self._defer(run, kind, outcome, deferrals)
            if not refused:
                self.gate.held(run)
        elif deferrals.uncertain.events and outcome.kind is not Kind.ABANDONED:
            await deferrals.finished_in_place(kind, run.key, _position(run))
        return outcome

    def _count(self, run: Run, kind: Kind) -> None:
        """Tell the gate of an attempt: its rate takes first ones of messages that were not deferred."""
        gate = self.gate
        now = self._clock.latest
        if kind is Kind.PERMANENT:
            if gate.closed:
                gate.dropped(run, now)
        elif kind is Kind.SUCCESS or kind is Kind.TRANSIENT:
            failed = kind is Kind.TRANSIENT
            if run.timer is None and run.attempt == 1:
                gate.window.record(failed, now)
            if gate.closed:
                gate.attempted(run, failed=failed, now=now)

    async def _append(self, run: Run, kind: DeferredKind, deferrals: Deferrals) -> Outcome | None:
        """Put an event behind what is deferred of its key; None when nothing is, after all."""
        run.partition.give_back(run)
        wait_s = delay_s(1, self._base_s, self._max_s, self._runtime.random())
        at = timer_second(self._runtime.wall(), wait_s)
        try:
            if not await deferrals.append(kind, run.key, _entry(run), at):
                return None
        except StoreError as error:
            # Its turn is behind the deferred ones, so its handler must not run: Retry comes back here.
            return Outcome(Kind.TRANSIENT, error)
        self.appended += 1
        self._keep(run)
        return Outcome(Kind.DEFERRED)

    async def _defer(
        self, run: Run, kind: DeferredKind, outcome: Outcome, deferrals: Deferrals
    ) -> Outcome:
        """Begin a queue with an event that failed; if that cannot be stored, it goes on in place."""
        run.partition.give_back(run)
        error = outcome.error
        if isinstance(outcome, Refusal):
            wait_s = max(0.0, outcome.until - self._runtime.monotonic())
            text = None
        else:
            wait_s = delay_s(1, self._base_s, self._max_s, self._runtime.random())
            text = error_text(error)
        at = timer_second(self._runtime.wall(), wait_s)
        try:
            await deferrals.defer(kind, run.key, _entry(run), text, at)
        except StoreError as failure:
            # Deferral is there to keep the partition going; without a store this key waits, as without it.
            more = self._store_storm.allows(logging.WARNING, run)
            if more is not None:
                _log.warning(
                    "cannot be deferred, is tried again in place: %s: %s%s",
                    run.where(),
                    failure,
                    more,
                    extra=fields(run),
                )
            return outcome
        self.deferred += 1
        self._keep(run)
        more = self._storm.allows(logging.WARNING, run)
        if more is not None:
            _log.warning(
                "attempt %d failed, deferred for %.3g s: %s: %r%s"
                if text is not None
                else "held back before attempt %d, deferred for %.3g s: %s: %r%s",
                run.attempt if text is not None else run.attempt + 1,
                wait_s,
                run.where(),
                error,
                more,
                exc_info=error if text is not None else None,
                extra=fields(run),
            )
        return Outcome(Kind.DEFERRED, error)

    def _keep(self, run: Run) -> None:
        if self._remember is not None and run.record is not None:
            self._remember(run.record)


def _position(run: Run) -> int:
    if run.timer is not None:
        time: int = run.timer.time
        return time
    assert run.record is not None, "a run has a record or a timer"
    return run.record.offset


def _entry(run: Run) -> Deferred:
    """What is stored of an event."""
    if run.timer is not None:
        return Deferred(run.timer.time, 0, run.origin())
    record = run.record
    assert record is not None, "a run has a record or a timer"
    return Deferred(record.offset, record.timestamp, run.origin(), record)


def error_text(error: BaseException | None) -> str:
    """An error as one line that any store takes."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001
        text = type(error).__name__  # an error that cannot be written is an error all the same
    return text.encode("utf-8", "backslashreplace").decode()
