"""One assigned partition: what is polled, admitted, running and finished of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prosody._core import KeyQueue, OffsetTracker
from prosody.consume.decode import UndecodableError, decode_excise, decode_key, decode_message
from prosody.consume.lanes import Lanes
from prosody.model.outcome import Kind, Outcome
from prosody.model.run import Run

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Sequence

    from prosody.broker.protocol import Record, TopicPartition
    from prosody.consume.filters import Filters
    from prosody.middleware.stacks import Stack
    from prosody.runtime import Runtime

_log = logging.getLogger("prosody.partition")


@dataclass(frozen=True, slots=True)
class Shared:
    """What all partitions of one subscription share."""

    runtime: Runtime
    loop: asyncio.AbstractEventLoop
    context: contextvars.Context
    """The ``contextvars`` as they were at ``subscribe``; every handler run starts from a copy."""
    filters: Filters
    stack: Stack
    max_uncommitted: int
    want_records: Callable[[], None]
    """Called when a partition has nothing left to admit."""
    failed: Callable[[Partition, BaseException], None]
    """Called, once, when a fault of the library's own ends a partition."""
    torn_down: Callable[[], bool]
    """Whether all tasks of the loop are being cancelled, as ``asyncio.run`` does at its end."""


class Partition:
    """Admits records while fewer than ``max_uncommitted`` are unfinished, and tracks their ends.

    Life cycle: running -> draining (starts nothing more) -> cancelling (handlers are told to stop)
    -> closed. One object lives for one assignment: work that outlives it still points to it, and so
    can touch neither the offsets nor the queue of the next assignment (``epoch`` numbers them, for logs).
    """

    def __init__(self, topic_partition: TopicPartition, epoch: int, shared: Shared) -> None:
        self.topic_partition = topic_partition
        self.epoch = epoch
        self.loop = shared.loop
        self.queue = KeyQueue()
        self.tracker = OffsetTracker()
        self.runs: set[Run] = set()
        """Runs taken from the queue and not yet finished."""
        self.permit_waits = 0
        """Lanes of this partition that wait for a permit."""
        self.running = True
        self.cancelling = False
        self.closed = False
        self.committed: int | None = None
        """The offset committed last in this assignment; at first, the one it began at."""
        self._shared = shared
        self._began_at: int | None = None
        self._inbox: Sequence[Record] = ()
        self._next = 0
        """Index of the first record of the inbox that is not admitted."""
        self._idle: asyncio.Future[None] | None = None
        self._drained: asyncio.Task[None] | None = None
        self._lanes = Lanes(self, shared)

    # Called by the poller

    @property
    def wants_records(self) -> bool:
        """Whether everything polled so far is admitted, so that the next poll should ask again."""
        return self.running and self._next >= len(self._inbox)

    def receive(self, records: Sequence[Record]) -> None:
        """Take polled records, in offset order; admit what there is room for."""
        if not self.running:
            return  # polled before, delivered after the partition was given up
        if self._began_at is None and records:
            self._began_at = records[0].offset
            if self.committed is None:
                self.committed = self._began_at
        left = self._inbox[self._next :]
        self._inbox = [*left, *records] if left else records
        self._next = 0
        self.admit()
        self.wake_lane()

    # Called by the lanes

    def admit(self) -> None:
        """Move records from the inbox to the key queues while there is room. Does not raise."""
        if self._next >= len(self._inbox):
            return
        if self.tracker.outstanding >= self._shared.max_uncommitted:
            return
        try:
            self._admit()
        except Exception as error:  # noqa: BLE001
            # A fault of ours. It must harm neither the poller, which has records of other partitions
            # in its hands, nor a lane: this partition alone starts again.
            self.fault(error)

    def _admit(self) -> None:
        inbox = self._inbox
        at = self._next
        end = len(inbox)
        tracker = self.tracker
        push = self.queue.push
        shared = self._shared
        room = shared.max_uncommitted - tracker.outstanding
        runtime = shared.runtime
        is_loop = shared.filters.is_loop
        allows = shared.filters.allows
        now = runtime.monotonic()
        last = tracker.last_admitted
        before = -1 if last is None else last
        while at < end and room > 0:
            record = inbox[at]
            at += 1
            offset = record.offset
            if offset <= before:
                continue  # delivered a second time, after a seek or a reset of the connection
            tracker.admit(offset, now)
            if record.headers and is_loop(record):
                tracker.complete(offset)
                continue
            try:
                key = decode_key(record)
                if record.value is None:
                    room -= self._admit_excise(record, key)
                    continue
                message = decode_message(record, key, runtime)
            except UndecodableError as error:
                room -= self._admit_undecodable(record, error)
                continue
            if allows(message.payload):
                push(key, Run(self, record, key, message))
                room -= 1
            else:
                tracker.complete(offset)
        if at >= end:
            self._inbox = ()
            at = 0
            shared.want_records()
        self._next = at

    def _admit_excise(self, record: Record, key: str) -> bool:
        """Queue a record without a value, or be done with it; whether it took a place."""
        if self._shared.stack.takes_excise:
            event = decode_excise(record, key, self._shared.runtime)
            self.queue.push(key, Run(self, record, key, event))
            return True
        _log.info(
            "record without a value skipped, the handler has no on_excise: %s offset %d",
            self.name,
            record.offset,
        )
        self.tracker.complete(record.offset)
        return False

    def _admit_undecodable(self, record: Record, error: UndecodableError) -> bool:
        """Queue a record for the dead letters, or be done with it; whether it took a place."""
        _log.error("record cannot be decoded: %s offset %d: %s", self.name, record.offset, error)
        if self._shared.stack.takes_undecodable:
            # The raw key keeps its place among the other records of that key.
            key = (record.key or b"").decode("utf-8", "backslashreplace")
            self.queue.push(key, Run(self, record, key, None, error))
            return True
        self.tracker.complete(record.offset)
        return False

    def wake_lane(self) -> None:
        """Have a lane look at the queue, if something is ready."""
        if self.queue.ready:
            self._lanes.wake()

    def finish(self, run: Run, outcome: Outcome) -> None:
        """A run is over: its key is free, and its offset done unless it was abandoned."""
        run.finish()
        self.runs.discard(run)
        self.queue.done(run.key)
        if outcome.kind is not Kind.ABANDONED:
            self.tracker.complete(run.record.offset)
        if self._idle is not None and not self.runs and not self._idle.done():
            self._idle.set_result(None)

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
        committable = self.tracker.committable
        return None if committable == self.committed else committable

    @property
    def resume_at(self) -> int | None:
        """Where reading must begin again so that nothing is lost; None before any record."""
        committable = self.tracker.committable
        return self._began_at if committable is None else committable

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
        """Wait until no handler runs, however long; ``is_stalled`` shows one that does not end."""
        while not await self._until_idle(60.0):
            _log.error("%s waits for handlers that do not end: %d", self.name, len(self.runs))

    async def _drain(self, cancel_after_s: float, abandon_after_s: float) -> None:
        self._stop_admission()
        if not await self._until_idle(cancel_after_s):
            self.cancelling = True
            for run in tuple(self.runs):
                run.cancel()
            if not await self._until_idle(abandon_after_s - cancel_after_s):
                for run in self.runs:
                    _log.error(
                        "handler did not stop within the shutdown timeout, left behind: %s",
                        run.where(),
                    )
        self._close()

    def lose(self) -> None:
        """The partition is gone already: cancel what runs, wait for nothing."""
        self._stop_admission()
        self.cancelling = True
        for run in tuple(self.runs):
            run.cancel()
        self._close()

    def _stop_admission(self) -> None:
        self.running = False
        self._inbox = ()
        self._next = 0
        self.queue.clear()
        for run in tuple(self.runs):
            run.interrupt()

    async def _until_idle(self, timeout_s: float) -> bool:
        if self.runs and timeout_s > 0:
            self._idle = self.loop.create_future()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._idle
            except TimeoutError:
                pass  # what it means is the caller's business, told by the return value
            finally:
                self._idle = None
        return not self.runs

    def _close(self) -> None:
        self.closed = True
        self._lanes.close()
