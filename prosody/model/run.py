"""One event on its way through the stack: the internal side of what a handler sees as a context."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Protocol

from prosody.model.times import utc_from_seconds
from prosody.model.trace import carried

if TYPE_CHECKING:
    import asyncio
    import contextvars
    from collections.abc import Mapping

    from prosody.broker.protocol import Record, TopicPartition
    from prosody.deferral.deferrals import Deferrals
    from prosody.deferral.timer_calls import TimerCalls
    from prosody.model.context import Context
    from prosody.model.message import ExciseMessage, Message, Timer
    from prosody.model.outcome import Outcome
    from prosody.timers.due import DueTimer


class WorkClass(enum.IntEnum):
    """Which share of the handler time a run is counted in."""

    NORMAL = 0
    """First attempts."""
    FAILURE = 1
    """Every attempt after a failed one."""


_NORMAL = WorkClass.NORMAL  # looking it up in the enum costs more than all else of making a run


class Holder(Protocol):
    """What a run, its context and the layers need to know of the partition that holds it."""

    topic_partition: TopicPartition
    loop: asyncio.AbstractEventLoop
    running: bool
    """Whether new attempts may begin."""
    cancelling: bool
    """Whether handlers have been told to stop."""
    closed: bool
    """Whether nothing that ends now counts any more."""
    number: int
    """Stands for the partition in what its keys are charged to."""

    waiting: int
    """Runs that wait for the store's answer or their first permit, without a lane; counted down by the
    lanes."""
    timer_calls: TimerCalls | None
    """What contexts offer; None when this client has no timer store."""
    deferrals: Deferrals | None
    """Which keys have deferred work; None where nothing is deferred (no store, or not pipeline mode)."""

    def admit(self) -> None:
        """Take in more, if there is room."""
        ...

    def finish(self, run: Run, outcome: Outcome) -> None:
        """A run is over: its key is free, and its offset done unless it was abandoned."""
        ...

    def written(self, run: Run) -> None:
        """What ``finish`` left to be written about ``run`` is written, or will never be."""
        ...

    def fail(self, run: Run, error: BaseException) -> None:
        """A fault of the library's own met ``run``: this assignment cannot go on."""
        ...

    def give_back(self, run: Run) -> None:
        """Give back the permit that ``run`` holds, if it does: it is about to wait."""
        ...

    def fresh_context(self) -> contextvars.Context:
        """A copy of the ``contextvars`` as they were at ``subscribe``."""
        ...


NOTHING_AWAITED = range(0)


class Run:
    """An admitted event, from its key queue to its end: a record, or a timer that is due.

    Life cycle: queued -> waiting for the store's answer, if it was asked -> waiting for a permit ->
    (in the handler | in backoff | waiting)* -> finished.
    It has no lane before its first permit.
    ``handling`` is true exactly while the handler runs: only then may the run be cancelled.
    The run of a retry timer becomes, one after the other, that of each deferred event (``take_on``).
    """

    __slots__ = (
        "attempt",
        "awaited",
        "began",
        "cancelled",
        "context",
        "duplicate",
        "error",
        "event",
        "finished",
        "handling",
        "interruptible",
        "key",
        "partition",
        "permit",
        "place",
        "record",
        "redelivered",
        "task",
        "timer",
        "trace",
        "unwritten",
        "work_class",
    )

    def __init__(
        self,
        partition: Holder,
        record: Record | None,
        key: str,
        event: Message | ExciseMessage | Timer | None,
        error: Exception | None = None,
        timer: DueTimer | None = None,
    ) -> None:
        self.partition = partition
        self.record = record
        """None for a timer; that of the message while a deferred one is taken on."""
        self.timer = timer
        """The timer that made this run; None when a record did."""
        self.awaited = NOTHING_AWAITED
        """Of a timer: the offsets whose records were still to come when it was queued, so that they and it
        do not stand in the order of their key."""
        self.redelivered = False
        """What it stands for now was deferred before."""
        self.trace: Mapping[str, str] | None = None
        """The trace that its attempts are part of, once that is not just what record or timer say: after a
        first attempt that failed, and for a deferred event what was stored with it."""
        self.duplicate: Any = None
        """What deduplication knows of the message; None when it has no id, or nothing is deduplicated."""
        self.unwritten = False
        """Its end is still to be written: the offset is not done before ``Holder.written``."""
        self.key = key
        self.event = event
        """What the handler is given; None for a record that cannot be decoded, and for a retry timer."""
        self.error = error
        """Why there is no event."""
        self.attempt = 0
        """Handler attempts begun."""
        self.work_class = _NORMAL
        self.task: asyncio.Task[Any] | None = None
        """The lane's task, in which the stack and the handler run; None before the first permit."""
        self.place = (partition.number, key)
        """What its handler time is charged to."""
        self.permit = False
        """Whether it holds a permit; kept by the scheduler."""
        self.began = 0.0
        """When it got the permit of the present attempt, or of the last one."""
        self.handling = False
        self.context: Context | None = None
        self.cancelled = False
        """The present attempt was told to stop: by its timeout, or by a shutdown."""
        self.finished = False
        self.interruptible: asyncio.Future[bool] | None = None
        """What the run waits for outside the handler (a permit, a backoff); False ends the wait early."""

    def cancel(self) -> None:
        """Ask the handler to stop: flag, ``on_cancel`` and task cancellation, once per attempt."""
        if not self.handling or self.cancelled:
            return
        assert self.task is not None, "a handler runs in a lane"
        self.cancelled = True
        if self.context is not None:
            self.context._signal()
        self.task.cancel()

    def interrupt(self) -> None:
        """End a wait outside the handler: a shutdown does not wait for permits or backoffs."""
        waiting = self.interruptible
        if waiting is not None and not waiting.done():
            waiting.set_result(False)

    def take_on(self, record: Record | None, event: Message | ExciseMessage | Timer) -> None:
        """Stand for a deferred event from now on; what it stood for before has ended."""
        self._end_context()
        self.record = record
        self.event = event
        self.redelivered = True
        self.duplicate = None
        self.attempt = 0
        self.work_class = WorkClass.NORMAL

    def origin(self) -> Mapping[str, str]:
        """The trace that the next attempt goes on from; empty when there is none."""
        if self.trace is not None:
            return self.trace
        if self.record is not None:
            return carried(self.record.headers)
        assert self.timer is not None, "a run has a record or a timer"
        return self.timer.trace

    def finish(self) -> None:
        """The event has ended; its context is of no more use."""
        self.finished = True
        context = self.context
        if context is not None:
            self.context = None  # as in _end_context, which every message would call
            context._end()

    def _end_context(self) -> None:
        # Let go of in any case: run and context in a circle would wait for the garbage collector.
        context, self.context = self.context, None
        if context is not None:
            context._end()

    def where(self) -> str:
        """Topic, partition, offset and key, for error texts and logs; a long key is shortened."""
        tp = self.partition.topic_partition
        return (
            f"topic {tp.topic!r} partition {tp.partition} {self._which()} key {shorten(self.key)}"
        )

    def _which(self) -> str:
        if self.record is not None:
            return f"offset {self.record.offset}"
        assert self.timer is not None, "a run has a record or a timer"
        time = getattr(self.event, "time", None) or utc_from_seconds(self.timer.time)
        return f"timer {time:%Y-%m-%dT%H:%M:%SZ}"


def shorten(key: str, limit: int = 80) -> str:
    """A key as it may stand in a log line: quoted, and cut when long."""
    if len(key) <= limit:
        return repr(key)
    return f"{key[:limit]!r}... ({len(key)} characters)"
