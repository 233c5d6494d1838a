"""The inner state of a consumer as one JSON document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from prosody.consume.doing import doing, iso, iso_of
from prosody.stores.protocol import DeferredKind

if TYPE_CHECKING:
    from prosody.consume.inside import Inside
    from prosody.consume.partition import Partition
    from prosody.model.run import Run

RUNS_MOST: Final = 100
"""So many runs are shown, those that have had their permits for longest first."""

KEY_MAX: Final = 200
"""Characters of a key that are shown."""


def picture(inside: Inside) -> dict[str, Any]:
    """Everything at this moment; times in UTC, ages in seconds."""
    runtime, scheduler = inside.runtime, inside.stack.scheduler
    held = inside.assignment.partitions()
    # Partitions and numbers are few; runs are bounded by max_uncommitted for each of them.
    running = sorted(
        (run for partition in held for run in partition.runs if run.task is not None),
        key=lambda run: run.began,
    )
    monopolization, gate = inside.stack.monopolization, inside.stack.gate
    return {
        "at": iso(runtime.wall()),
        "not_ready": inside.not_ready(),
        "stalled": inside.stalled(),
        "problems": {
            "broker": inside.broker.problem,
            "store": None if inside.stores is None else inside.stores.problem,
        },
        "permits": {
            "limit": scheduler.limit,
            "in_use": scheduler.in_use,
            "waiting": scheduler.waiting,
        },
        "deferral_closed": None if gate is None else gate.closed,
        "monopolization_refusals": None if monopolization is None else monopolization.refusals,
        "partitions": [_partition(inside, partition) for partition in held],
        "runs": [_run(inside, run) for run in running[:RUNS_MOST]],
        "runs_not_shown": max(0, len(running) - RUNS_MOST),
    }


def _partition(inside: Inside, partition: Partition) -> dict[str, Any]:
    topic, number = partition.topic_partition
    progress, tracker = partition.progress, partition.tracker
    committed = progress.committed
    return {
        "topic": topic,
        "partition": number,
        "epoch": partition.epoch,
        "state": _state(partition),
        "offset": progress.offset,
        "committed": None if committed is None else committed.offset,
        "last_received": progress.last_received,
        "uncommitted": tracker.outstanding,
        "finished_ahead": tracker.finished_ahead,
        "oldest": _oldest(inside, partition),
        "waiting": partition.waiting,
        "in_flight": len(partition.runs) - partition.waiting,
        "queued_behind_their_keys": partition.queue.queued,
        "fetched_not_admitted": len(partition.inbox.left),
        "not_admitted_because": partition.inbox.blocked(),
        **_kept(partition),
        "problem": None if partition.durable is None else partition.durable.problem,
        "unreadable": inside.broker.unreadable.get(partition.topic_partition),
    }


def _state(partition: Partition) -> str:
    if partition.closed:
        return "closed"
    if partition.cancelling:
        return "cancelling"
    if not partition.running:
        return "draining"
    return "running" if partition.opened else "waiting for its store"


def _oldest(inside: Inside, partition: Partition) -> dict[str, Any] | None:
    """The first unfinished record: it holds the committed offset back."""
    oldest = partition.tracker.oldest()
    if oldest is None:
        return None
    offset, since = oldest
    age_s = inside.runtime.monotonic() - since
    return {"offset": offset, "since": iso_of(inside.runtime, since), "age_s": round(age_s, 3)}


def _kept(partition: Partition) -> dict[str, Any]:
    """Timers and deferred work; nothing where there is no store."""
    deferrals, durable = partition.deferrals, partition.durable
    keys = None
    since = None
    if deferrals is not None:
        keys = {
            "messages": deferrals.keys[DeferredKind.MESSAGE],
            "timers": deferrals.keys[DeferredKind.TIMER],
        }
        since = deferrals.oldest
    return {
        "deferred_keys": keys,
        "deferred_since": None if since is None else iso(since),
        "timers_pending": None if durable is None else durable.timers.pending,
    }


def _run(inside: Inside, run: Run) -> dict[str, Any]:
    topic, partition = run.partition.topic_partition
    return {
        "topic": topic,
        "partition": partition,
        "offset": None if run.record is None else run.record.offset,
        "timer": None if run.timer is None else iso(run.timer.time),
        "key": run.key[:KEY_MAX],
        "attempt": run.attempt,
        "since": iso_of(inside.runtime, run.began),
        "doing": doing(run, inside.stack.scheduler, inside.runtime),
    }
