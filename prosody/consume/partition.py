"""One assigned partition: what is admitted, running and finished of it, and how it ends."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from prosody._core import KeyQueue
from prosody.consume.inbox import Inbox
from prosody.consume.progress import Progress
from prosody.consume.unanswered import Unanswered
from prosody.consume.unwritten import Unwritten
from prosody.model.fields import fields, fields_of
from prosody.model.outcome import ABANDONED, SUCCESS, Kind, Outcome

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Sequence

    from prosody.broker.protocol import Record, Start, TopicPartition
    from prosody.consume.shared import Shared
    from prosody.model.run import Run

_log = logging.getLogger("prosody.partition")
_NO_END = "%s waits for handlers that do not end: %d"
_LEFT_BEHIND = "handler did not stop within the shutdown timeout, left behind: %s"

ADMIT_SHARE = 4
"""Room for one in so many of ``max_uncommitted`` is used at once, less may wait for the next record to
be taken: an admission costs something, and most records leave soon after others."""

ADMIT_MOST = 256
"""So much room is used at once in any case."""


class Partition:
    """Admits records while there is room, and notes how they end.

    Life cycle: running -> draining (starts nothing more) -> cancelling (handlers are told to stop)
    -> closed; lost at any time, which is all of it at once. One object lives for one assignment: work
    that outlives it still points to it, and so can touch neither the offsets nor the queue of the next
    assignment (``epoch`` numbers them, for logs).
    """

    def __init__(
        self,
        topic_partition: TopicPartition,
        epoch: int,
        start: Start,
        shared: Shared,
        number: int = 0,
    ) -> None:
        """:param number: stands for the partition in what its keys are charged to."""
        self.topic_partition = topic_partition
        self.epoch = epoch
        self.number = number
        self.loop = shared.loop
        self.queue = KeyQueue()
        self.progress = Progress(self.name, start, fields_of(topic_partition))
        self.tracker = self.progress.tracker
        self.runs: set[Run] = set()
        """The first of each key, not yet finished; many of them wait for a permit."""
        self.waiting = 0
        """Runs that wait for an answer of the store or for their first permit, without a lane."""
        self.durable = shared.durables.of(self) if shared.durables else None
        self.timer_calls = self.durable.calls if self.durable else None
        self.deferrals = self.durable.deferrals if self.durable else None
        self.opened = self.durable is None
        """Whether records may be admitted: only once it is known which keys have deferred work."""
        self.unwritten = Unwritten(self)
        self.unanswered = Unanswered(self._answered)
        self.running = True
        self.cancelling = False
        self.closed = False
        self.lost = False
        self._shared = shared
        self._scheduler = shared.stack.scheduler
        self._pop = self.queue.pop
        self._ends_until_look = self._ends_per_look = max(
            1, min(shared.max_uncommitted // ADMIT_SHARE, ADMIT_MOST)
        )
        self.inbox = Inbox(self, shared)
        self._admit = self.inbox.admit
        self._idle: asyncio.Future[None] | None = None
        self._drained: asyncio.Task[None] | None = None

    # Called by the poller

    @property
    def wants_records(self) -> bool:
        """Whether everything polled so far is admitted, so that the next poll should ask again."""
        return self.running and self.inbox.empty

    def receive(self, records: Sequence[Record]) -> None:
        """Take polled records, in offset order; admit what there is room for."""
        if not self.running:
            return  # polled before, delivered after the partition was given up
        self.inbox.put(records)
        self.admit()

    def open(self) -> None:
        """Admit records from now on."""
        if not self.opened:
            self.opened = True
            self.admit()

    # Called by the admission

    def push(self, run: Run, now: float) -> None:
        """Queue an admitted run behind those of its key."""
        if self.queue.push(run.key, run):
            self.ready(now)

    def ready(self, now: float) -> None:
        """A key has become ready: its first run waits for a permit from now on, or from an answer on."""
        run = self._pop()
        self.runs.add(run)
        self.waiting += 1
        if run.duplicate is None or not self.unanswered.hold(run):
            scheduler = self._scheduler  # as ``enqueue``, which would be one call more a message
            scheduler.push(run.place, run, run.work_class, now)
            if scheduler.free and not scheduler.woken:
                scheduler.wake()

    def _answered(self, run: Run) -> None:
        """The store has told about a run that waited for that."""
        self._scheduler.enqueue(run, self._shared.runtime.monotonic())

    # Called by the lanes

    def admit(self) -> None:
        """Move records from the inbox to the key queues while there is room. Does not raise."""
        if self.inbox.empty or not self.opened:
            return
        try:
            self._admit()
        except Exception as error:  # noqa: BLE001
            # A fault of ours. It must harm neither the poller, which has records of other partitions
            # in its hands, nor a lane: this partition alone starts again.
            self.fault(error)

    def give_back(self, run: Run) -> None:
        """Give back the permit that ``run`` holds, if it does."""
        if run.permit:
            self._scheduler.give_back(run)

    def finish(self, run: Run, outcome: Outcome) -> None:
        """A run is over: its key is free, and its offset done unless it was abandoned."""
        if run.permit:  # it ended without its handler
            self._scheduler.give_back(run)
        run.finish()
        self.runs.discard(run)
        if run.timer is None and (outcome is SUCCESS or outcome.kind is not Kind.ABANDONED):
            if run.unwritten:
                self.unwritten.runs.add(run)
            else:
                self.tracker.complete(run.record.offset)  # type: ignore[union-attr]  # no timer
        if self.queue.done(run.key):
            self.ready(self._scheduler.latest)
        self._ends_until_look -= 1
        if not self.waiting or self._ends_until_look <= 0:
            self._ends_until_look = self._ends_per_look
            self.admit()
        if self._idle is not None:
            self._end_wait()

    def written(self, run: Run) -> None:
        """What ``finish`` left to be written about ``run`` is written, or will never be."""
        self.unwritten.written(run)
        if not self.unwritten.runs:
            self._end_wait()

    def fail(self, run: Run, error: BaseException) -> None:
        """A fault of the library's own met ``run``: this assignment cannot go on."""
        # First, because finish frees the key: what is queued behind the run must not overtake it.
        self.fault(error)
        self.finish(run, Outcome(Kind.ABANDONED, error))

    def fault(self, error: BaseException) -> None:
        """A fault of the library's own: start nothing more, and have the partition start again."""
        if self.running:
            self._stop_admission()
            self._shared.failed(self, error)

    def fresh_context(self) -> contextvars.Context:
        """A copy of the ``contextvars`` as they were at ``subscribe``."""
        return self._shared.context.copy()

    # Called by the assignment and the client

    @property
    def name(self) -> str:
        """Topic and partition, for logs."""
        return f"topic {self.topic_partition.topic!r} partition {self.topic_partition.partition}"

    @property
    def uncommitted(self) -> int:
        """Records admitted and not yet finished."""
        return self.tracker.outstanding

    def to_commit(self) -> int | None:
        """The offset to commit now; None when nothing has changed since the last commit."""
        reached = self.progress.to_commit()
        return None if reached is None else reached.offset

    def is_stalled(self, now: float, threshold_s: float) -> bool:
        """Whether the oldest unfinished record was admitted ``threshold_s`` ago or longer."""
        oldest = self.tracker.oldest()
        return oldest is not None and now - oldest[1] >= threshold_s

    async def drain(self, cancel_after_s: float, abandon_after_s: float) -> None:
        """Start nothing more, let handlers end, tell them to stop, then give them up.

        Returns as soon as nothing runs. A second call waits for the first one's end.

        :param cancel_after_s: when handlers are cancelled, in seconds from now.
        :param abandon_after_s: when those that still run are left behind, in seconds from now.
        """
        if self._drained is None:
            self._drained = self.loop.create_task(
                self._drain(cancel_after_s, abandon_after_s), name=f"prosody-drain {self.name}"
            )
        await asyncio.shield(self._drained)

    async def wait_ended(self) -> None:
        """Wait until no handler runs, however long, or the partition is lost.

        A handler that does not end is told in the log, and by ``is_stalled``.
        """
        while not (self.lost or await self._until_idle(60.0) or self.lost):
            _log.error(_NO_END, self.name, len(self.runs), extra=fields_of(self.topic_partition))

    async def _drain(self, cancel_after_s: float, abandon_after_s: float) -> None:
        self._stop_admission()
        if not await self._until_idle(cancel_after_s) and not self.lost:
            self._cancel_runs()
            if not await self._until_idle(abandon_after_s - cancel_after_s) and not self.lost:
                for run in self.runs:
                    _log.error(_LEFT_BEHIND, run.where(), extra=fields(run))
        self.unwritten.give_up()
        self._close()
        if self.durable is not None:
            await self.durable.settled()

    def lose(self) -> None:
        """The partition is gone already: cancel what runs, wait for nothing; a drain ends at once."""
        self.lost = True
        self._stop_admission()
        self._cancel_runs()
        self._close()
        self._end_wait()

    def _cancel_runs(self) -> None:
        self.cancelling = True
        for run in tuple(self.runs):
            run.cancel()

    def _stop_admission(self) -> None:
        self.running = False
        if self.durable is not None:
            self.durable.drain()
        self.inbox.clear()
        self.queue.clear()
        for run in tuple(self.runs):
            if run.task is not None:
                run.interrupt()
            elif not run.permit:  # with one, a lane is just about to look into it
                if not self.unanswered.release(run):
                    self._scheduler.give_back(run)
                self.finish(run, ABANDONED)
        self.waiting = 0

    def _end_wait(self) -> None:
        idle = not self._busy or self.lost
        if idle and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def _until_idle(self, timeout_s: float) -> bool:
        if self._busy and timeout_s > 0:
            self._idle = self.loop.create_future()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._idle
            except TimeoutError:
                pass  # what it means is the caller's business, told by the return value
            finally:
                self._idle = None
        return not self._busy

    @property
    def _busy(self) -> bool:
        return bool(self.runs or self.unwritten.runs)

    def _close(self) -> None:
        self.closed = True
        if self.durable is not None:
            self.durable.stop()
