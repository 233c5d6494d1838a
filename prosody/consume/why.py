"""Why a message is not done: one sentence, from what is in memory. Asks no broker and no store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prosody._core.offset_set import MAX_TEXT, decode_finished
from prosody.consume.doing import doing, iso, later, seconds
from prosody.consume.inside import run_of
from prosody.deferral.deferrals import RETRY_TIMER
from prosody.model.run import shorten
from prosody.stores.protocol import DeferredKind

if TYPE_CHECKING:
    from prosody.broker.protocol import TopicPartition
    from prosody.consume.inside import Inside
    from prosody.consume.partition import Partition
    from prosody.model.run import Run

_NAMED_MOST: Final = 3
"""So many messages that may be in the way are named."""

_ENDS = "its partition starts nothing more: it is being given up, or starts again after a fault"


def why_offset(inside: Inside, place: TopicPartition, offset: int, key: str | None = None) -> str:
    """Why the message of an offset is not done.

    :param key: that of the message, if it is known: what waits in its queue knows its key only.
    """
    which = f"topic {place.topic!r} partition {place.partition} offset {offset}"
    partition = inside.assignment.get(place)
    if partition is None:
        return f"{which}: {_not_assigned(inside)}"
    run = run_of(partition, offset)
    if run is not None:
        return f"{run.where()}: {_doing(inside, run)}"
    return f"{which}: {_without_run(inside, partition, offset, key)}"


def why_key(inside: Inside, key: str, topic: str | None = None) -> str:
    """Why nothing more of a key is done; a sentence for each partition that knows something of it."""
    held = [
        partition
        for partition in inside.assignment.partitions()
        if topic in (None, partition.topic_partition.topic)
    ]
    found = [text for partition in held if (text := _of_key(inside, partition, key)) is not None]
    if found:
        return "; ".join(found)
    which = f"key {shorten(key)}"
    if not held:
        return f"{which}: {_not_assigned(inside)}"
    for partition in held:
        if (reason := _admission(inside, partition)) is not None:
            return (
                f"{which}: nothing is known of it, but {partition.name} takes nothing in: {reason}"
            )
    lost = inside.broker.problem
    return (
        f"{which}: nothing is known of it in the {len(held)} partitions held here: everything of it is "
        "done, or has not come, or its partition is another member's"
        f"{'' if lost is None else f'; nothing comes now, as the connection to Kafka is lost: {lost}'}"
    )


def _without_run(inside: Inside, partition: Partition, offset: int, key: str | None) -> str:
    """Of an offset that is not the first of its key in a partition that is held."""
    if any(run.record and run.record.offset == offset for run in partition.unwritten.runs):
        return "it is handled; that is just being written for deduplication"
    if offset > partition.progress.last_received:
        return _not_admitted(inside, partition, offset)
    if _is_finished(partition, offset):
        return _finished(inside, partition, offset, key)
    return _behind(inside, partition, offset, key) if partition.running else _ENDS


# -- one of a key -----------------------------------------------------------------------------------


def _of_key(inside: Inside, partition: Partition, key: str) -> str | None:
    head = _head(partition, key)
    if head is not None:
        return f"{head.where()}: {_doing(inside, head)}"
    deferred = _deferred(inside, partition, key)
    if deferred is not None:
        return f"{partition.name} key {shorten(key)}: {deferred}"
    raw = key.encode("utf-8", "backslashreplace")
    for record in partition.inbox.left:
        if (record.key or b"") == raw:
            reason = _not_admitted(inside, partition, record.offset)
            return f"{partition.name} offset {record.offset} key {shorten(key)}: {reason}"
    return None


def _head(partition: Partition, key: str) -> Run | None:
    """The first of a key that is not finished: all others of the key wait for it."""
    return next((run for run in partition.runs if run.key == key), None)


def _doing(inside: Inside, run: Run) -> str:
    text = doing(run, inside.stack.scheduler, inside.runtime)
    gate = inside.stack.gate
    if gate is not None and gate.closed and run.attempt and not run.handling:
        text += "; it is not deferred, because nearly everything fails (defer_failure_threshold)"
    return text


def _behind(inside: Inside, partition: Partition, offset: int, key: str | None) -> str:
    """It is queued, so something of its key is in the way; the queue does not tell which."""
    if key is not None:
        head = _head(partition, key)
        if head is not None:
            return f"it waits behind another message of its key: {head.where()}: {_doing(inside, head)}"
        return f"it waits behind another message of its key, which is not {shorten(key)}"
    before = sorted(
        (run.record.offset if run.record else -1, run.where(), _doing(inside, run))
        for run in partition.runs
        # What is deferred runs under an offset of its own time; a timer under none.
        if run.timer is not None or (run.record is not None and run.record.offset < offset)
    )
    named = "; ".join(f"{where}: {text}" for _, where, text in before[:_NAMED_MOST])
    more = len(before) - _NAMED_MOST
    if len(before) == 1:
        return f"it waits behind another message of its key: {named}"
    tail = f"; {more} more" if more > 0 else ""
    return f"it waits behind another message of its key (ask with &key=), one of: {named}{tail}"


def _deferred(inside: Inside, partition: Partition, key: str) -> str | None:
    """What is deferred of a key, and until when; None when nothing is."""
    durable, deferrals = partition.durable, partition.deferrals
    if durable is None or deferrals is None:
        return None
    kind = next((kind for kind in DeferredKind if deferrals.holds(kind, key)), None)
    if kind is None:
        return None
    times = durable.timers.loaded(key, RETRY_TIMER[kind])
    runtime = inside.runtime
    if not times:
        until = "a time that is not in memory (more than some minutes ahead, or just being set)"
    elif (left_s := times[0] - runtime.wall()) > 0.0:
        until = f"{iso(times[0])} (in {seconds(left_s)})"
    else:
        until = f"{iso(times[0])}, which has come: its retry is about to begin"
    text = f"its {kind.name.lower()}s are deferred until {until}"
    monopolization = inside.stack.monopolization
    if monopolization is not None:
        room_at = monopolization.held_until((partition.number, key), runtime.monotonic())
        if room_at is not None:
            until = later(runtime, room_at)
            text += f"; its key is held back, as it takes too much handler time, until {until}"
    problem = inside.problem_of(partition)
    return text if problem is None else f"{text}; what is kept does not work at present: {problem}"


# -- before and after -------------------------------------------------------------------------------


def _not_assigned(inside: Inside) -> str:
    count = len(inside.assignment)
    reason = inside.not_ready()
    tail = f"; this client holds {count} partitions" if reason is None else f"; here: {reason}"
    return f"its partition is not assigned to this client{tail}"


def _not_admitted(inside: Inside, partition: Partition, offset: int) -> str:
    """It lies beyond everything that was taken in."""
    left = partition.inbox.left
    reason = _admission(inside, partition)
    if reason is not None:
        where = "it is fetched" if left and offset <= left[-1].offset else "it is not fetched"
        return f"{where}, and its partition takes nothing in: {reason}"
    unreadable = inside.broker.unreadable.get(partition.topic_partition)
    if unreadable is not None:
        return f"its partition gives no records: {unreadable}"
    if inside.broker.problem is not None:
        return f"it is not fetched: connection to Kafka lost: {inside.broker.problem}"
    last = partition.progress.last_received
    return f"nothing is known of it: it has not come, or is not in the log; the last that came is {last}"


def _admission(inside: Inside, partition: Partition) -> str | None:
    """Why a partition takes nothing in, although something waits or may come."""
    if not partition.running:
        return _ENDS
    if not partition.opened:
        problem = inside.problem_of(partition)
        return problem or "which keys have deferred messages is just being read from the store"
    blocked = partition.inbox.blocked()
    if blocked is None:
        return None
    oldest = partition.tracker.oldest()
    if oldest is None:
        return blocked
    offset, since = oldest
    run = run_of(partition, offset)
    age = f"unfinished for {seconds(inside.runtime.monotonic() - since)}"
    what = f"; {_doing(inside, run)}" if run is not None else ""
    return f"{blocked}; the oldest is offset {offset}, {age}{what}"


def _is_finished(partition: Partition, offset: int) -> bool:
    if offset < partition.progress.offset:
        return True
    committable = partition.tracker.committable
    if committable is None:
        return False
    ahead = decode_finished(partition.tracker.encode_finished(MAX_TEXT), committable)
    return any(start <= offset < end for start, end in ahead)


def _finished(inside: Inside, partition: Partition, offset: int, key: str | None) -> str:
    committed = partition.progress.committed
    is_committed = committed is not None and offset < committed.offset
    text = "it is finished, and committed" if is_committed else "it is finished, and not committed"
    deferrals = partition.deferrals
    keys = 0 if deferrals is None else deferrals.keys[DeferredKind.MESSAGE]
    if key is not None:
        deferred = _deferred(inside, partition, key)
        return text if deferred is None else f"{text}, or it is deferred: {deferred}"
    return f"{text}, or it is deferred, as {keys} keys are (ask with &key=)" if keys else text
