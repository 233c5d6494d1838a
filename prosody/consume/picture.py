"""The inner state of a consumer at one moment: what ``client.snapshot()`` and ``/debug/state`` show.

From what is in memory; asks no broker and no store, and touches nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from heapq import nsmallest
from typing import TYPE_CHECKING, Any, Final

from prosody.consume.doing import doing, short
from prosody.consume.inside import run_of
from prosody.consume.keys import busiest, deferred_keys
from prosody.model.snapshot import (
    OldestMessage,
    PartitionSnapshot,
    RunSnapshot,
    Snapshot,
    WaitingKey,
)
from prosody.stores.protocol import DeferredKind, TimerKind

if TYPE_CHECKING:
    from prosody.consume.inside import Inside
    from prosody.consume.partition import Partition
    from prosody.model.run import Run
    from prosody.runtime import Runtime

RUNS_MOST: Final = 100
WAITING_MOST: Final = 20
"""So many are shown."""


def nothing(runtime: Runtime, state: str) -> Snapshot:
    """The snapshot of a client that is not subscribed."""
    return Snapshot(_utc(runtime.wall()), state, "not subscribed")


def picture(inside: Inside) -> Snapshot:
    """Everything at this moment.

    Costs a look at each partition, each run, and each key that the scheduler remembers.
    """
    stack, scheduler = inside.stack, inside.stack.scheduler
    held = sorted(inside.assignment.partitions(), key=lambda each: each.topic_partition)
    runs = [run for partition in held for run in partition.runs]
    begun = [run for run in runs if run.task is not None]
    since = scheduler.waiting_since()
    waiting = [(since[run.place], run) for run in runs if run.place in since and not run.permit]
    shown, not_shown = deferred_keys(held)
    partitions = tuple(_partition(inside, partition) for partition in held)
    timers = [each.timers_pending for each in partitions if each.timers_pending is not None]
    monopolization, gate = stack.monopolization, stack.gate
    return Snapshot(
        at=_utc(inside.runtime.wall()),
        state=inside.state(),
        not_ready=inside.not_ready(),
        stalled=tuple(inside.stalled()),
        broker_problem=inside.broker.problem,
        store_problem=None if inside.stores is None else inside.stores.problem,
        permits=scheduler.limit,
        permits_in_use=scheduler.in_use,
        deferral_closed=None if gate is None else gate.closed,
        monopolization_refusals=None if monopolization is None else monopolization.refusals,
        timers_pending=None if inside.stores is None else sum(timers),
        partitions=partitions,
        keys_running=sum(run.handling for run in begun),
        runs=tuple(_run(inside, run) for run in nsmallest(RUNS_MOST, begun, key=_began)),
        runs_not_shown=max(0, len(begun) - RUNS_MOST),
        waiting=tuple(
            _waiting(inside, run, at) for at, run in nsmallest(WAITING_MOST, waiting, key=_waited)
        ),
        waiting_not_shown=max(0, len(waiting) - WAITING_MOST),
        busiest=busiest(held, scheduler.handler_times(), begun, inside.runtime.monotonic()),
        deferred=shown,
        deferred_not_shown=not_shown,
    )


def _partition(inside: Inside, partition: Partition) -> PartitionSnapshot:
    topic, number = partition.topic_partition
    progress, tracker = partition.progress, partition.tracker
    committed = None if progress.committed is None else progress.committed.offset
    end = _end(inside, partition)
    deferrals, durable = partition.deferrals, partition.durable
    deferred = None if deferrals is None else deferrals.keys
    oldest_deferred = None if deferrals is None else deferrals.oldest
    return PartitionSnapshot(
        topic=topic,
        partition=number,
        epoch=partition.epoch,
        state=_state(partition),
        offset=progress.offset,
        committed=committed,
        end=end,
        lag=None if committed is None else max(0, end - committed),
        last_received=progress.last_received,
        uncommitted=tracker.outstanding,
        finished_ahead=tracker.finished_ahead,
        oldest=_oldest(inside, partition),
        running=len(partition.runs) - partition.waiting,
        waiting=partition.waiting,
        queued=partition.queue.queued,
        fetched=len(partition.inbox.left),
        blocked=partition.inbox.blocked(),
        deferred_messages=None if deferred is None else deferred[DeferredKind.MESSAGE],
        deferred_timers=None if deferred is None else deferred[DeferredKind.TIMER],
        deferred_since=None if oldest_deferred is None else _utc(oldest_deferred),
        timers_pending=(
            None if durable is None else durable.timers.pending_of(TimerKind.APPLICATION)
        ),
        problem=None if durable is None else durable.problem,
        unreadable=inside.broker.unreadable.get(partition.topic_partition),
    )


def _state(partition: Partition) -> str:
    if partition.closed:
        return "closed"
    if partition.cancelling:
        return "cancelling"
    if not partition.running:
        return "draining"
    return "running" if partition.opened else "waiting for its store"


def _end(inside: Inside, partition: Partition) -> int:
    """The end of the log: as the last fetch has seen it, or as it was known before there was one."""
    # A log that got shorter is another one, and an assignment of its own: so the later one holds.
    return max(
        inside.broker.known_end(partition.topic_partition) or 0, partition.progress.known_end
    )


def _oldest(inside: Inside, partition: Partition) -> OldestMessage | None:
    """The first unfinished record: it holds the committed offset back."""
    oldest = partition.tracker.oldest()
    if oldest is None:
        return None
    offset, since = oldest
    run = run_of(partition, offset)
    return OldestMessage(
        offset=offset,
        key=None if run is None else short(run.key),
        attempt=None if run is None else run.attempt,
        since=_utc_of(inside.runtime, since),
        age_s=round(inside.runtime.monotonic() - since, 3),
        doing=None if run is None else doing(run, inside.stack.scheduler, inside.runtime),
    )


def _began(run: Run) -> tuple[float, str]:
    return run.began, run.key


def _waited(waiting: tuple[float, Run]) -> tuple[float, str]:
    since, run = waiting
    return since, run.key


def _event(run: Run) -> dict[str, Any]:
    """Which event it is of, and how often that was tried."""
    topic, partition = run.partition.topic_partition
    return {
        "topic": topic,
        "partition": partition,
        "key": short(run.key),
        "offset": None if run.record is None else run.record.offset,
        "timer": None if run.timer is None else _utc(run.timer.time),
        "attempt": run.attempt,
    }


def _run(inside: Inside, run: Run) -> RunSnapshot:
    return RunSnapshot(
        **_event(run),
        handling=run.handling,
        since=_utc_of(inside.runtime, run.began),
        doing=doing(run, inside.stack.scheduler, inside.runtime),
    )


def _waiting(inside: Inside, run: Run, since: float) -> WaitingKey:
    return WaitingKey(
        **_event(run),
        since=_utc_of(inside.runtime, since),
        waited_s=round(inside.runtime.monotonic() - since, 3),
    )


def _utc(wall_s: float) -> datetime:
    return datetime.fromtimestamp(wall_s, UTC)


def _utc_of(runtime: Runtime, at: float) -> datetime:
    """A time on the monotonic clock."""
    return _utc(runtime.wall() - runtime.monotonic() + at)
