"""Rules of the consume path, switched off one at a time, to see that the oracle misses each of them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from prosody._core import KeyQueue
from prosody.broker.memory import group as memory_group
from prosody.broker.protocol import OffsetAndMetadata, Start, TopicPartition
from prosody.consume import assignment, committer, inbox, lanes, partition, progress
from prosody.consume.shared import Shared
from prosody.errors import BrokerError
from prosody.middleware import retry, scheduler, shutdown, straight
from prosody.model.outcome import SUCCESS, Kind
from prosody.model.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import pytest

Mutant = "Callable[[pytest.MonkeyPatch], None]"

Assignment, Committer, Partition = assignment.Assignment, committer.Committer, partition.Partition
Progress = progress.Progress


def no_drain(patch: pytest.MonkeyPatch) -> None:
    async def drain(self: Any, *_: float) -> None:
        self._stop_admission()
        self._close()

    patch.setattr(Partition, "drain", drain)


def no_last_commit(patch: pytest.MonkeyPatch) -> None:
    async def commit_finally(*_: Any) -> None:
        return

    patch.setattr(Committer, "commit_finally", commit_finally)


def last_commit_tried_once(patch: pytest.MonkeyPatch) -> None:
    async def commit_finally(self: Any, partitions: Iterable[Any], _: float | None) -> None:
        async with self._lock:
            await self._send(tuple(partitions))

    patch.setattr(Committer, "commit_finally", commit_finally)


def released_at_once(patch: pytest.MonkeyPatch) -> None:
    give_up = Assignment._give_up

    async def hurried(self: Any, partitions: Iterable[Any], timeout_s: float | None) -> None:
        task = asyncio.create_task(give_up(self, partitions, timeout_s))
        if timeout_s is not None:
            await task  # a shutdown; only a revoke is hurried

    patch.setattr(Assignment, "_give_up", hurried)


def kept_partitions_begin_again(patch: pytest.MonkeyPatch) -> None:
    on_assigned = Assignment.on_assigned

    def forgetful(self: Any, starts: Mapping[TopicPartition, Start]) -> None:
        for tp, kept in list(self._held.items()):
            if kept.running and kept.progress.committed is not None:
                begin = Start(kept.progress.committed.offset, "", kept.progress._start.end)
                self._consumer.seek(tp, begin.offset)
                self._start(tp, begin)
        on_assigned(self, starts)

    patch.setattr(Assignment, "on_assigned", forgetful)


def one_too_high(patch: pytest.MonkeyPatch) -> None:
    send = Committer._send

    async def sent(self: Any, partitions: Iterable[Any]) -> Any:
        commit = self._consumer.commit

        async def higher(offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
            await commit({tp: OffsetAndMetadata(o.offset + 1) for tp, o in offsets.items()})

        self._consumer.commit = higher
        try:
            return await send(self, partitions)
        finally:
            self._consumer.commit = commit

    patch.setattr(Committer, "_send", sent)


def no_single_flight(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(partition, "KeyQueue", _EachAlone)


class _EachAlone:
    """A key queue that takes each entry for one of another key."""

    def __init__(self) -> None:
        self._keys = KeyQueue()
        self.pop, self.done, self.clear = self._keys.pop, self._keys.done, self._keys.clear

    def push(self, key: str, run: Run) -> bool:
        run.key = f"{key} {run.record.offset}"
        run.place = (run.partition.number, run.key)
        return self._keys.push(run.key, run)


def no_note_written(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Progress, "text", lambda *_: "")


def note_not_read(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(progress, "remembered", lambda *_: None)


def note_not_passed_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Progress, "text", lambda self, room: self.tracker.encode_finished(room))


def note_of_another_offset(patch: pytest.MonkeyPatch) -> None:
    """What was running when the commit was made is noted as finished too."""
    text = Progress.text

    def boastful(self: Any, room: int) -> str:
        honest = text(self, room)
        if honest or self.tracker.outstanding < 2:
            return honest
        from prosody.consume.remembered import encode_runs

        return encode_runs(self.offset, [(self.offset + 1, self.offset + 2)], room)

    patch.setattr(Progress, "text", boastful)


def commits_by_anyone(patch: pytest.MonkeyPatch) -> None:
    def commit(self: Any, _: Any, offsets: Any, *__: Any) -> None:
        self.committed.update(
            {TopicPartition(*tp): OffsetAndMetadata(*o) for tp, o in offsets.items()}
        )

    patch.setattr(memory_group.Group, "commit", commit)


def lost_goes_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Assignment, "on_lost", lambda *_: None)


def lost_does_not_cancel(patch: pytest.MonkeyPatch) -> None:
    def lose(self: Any) -> None:
        self.lost = True
        self._stop_admission()
        self._close()
        self._end_wait()

    patch.setattr(Partition, "lose", lose)


def abandons_late(patch: pytest.MonkeyPatch) -> None:
    drain = Partition.drain

    async def patient(self: Any, cancel_after_s: float, abandon_after_s: float) -> None:
        await drain(self, cancel_after_s, 3 * abandon_after_s)

    patch.setattr(Partition, "drain", patient)


def newest_first(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(partition, "KeyQueue", _NewestFirst)


class _NewestFirst:
    """A key queue that gives out the newest entry of a key."""

    def __init__(self) -> None:
        self._keys = KeyQueue()
        self._entries: defaultdict[str, list[Run]] = defaultdict(list)

    @property
    def ready(self) -> int:
        return self._keys.ready

    def push(self, key: str, run: Run) -> bool:
        self._entries[key].append(run)
        return self._keys.push(key, key)

    def pop(self) -> Run | None:
        key = self._keys.pop()
        return None if key is None else self._entries[key].pop()

    def done(self, key: str) -> bool:
        return self._keys.done(key)

    def clear(self) -> None:
        self._entries.clear()
        self._keys.clear()


def commits_go_back(patch: pytest.MonkeyPatch) -> None:
    """Each commit is followed by the one before, as one that was sent again too late."""
    connect = Assignment.connect

    def connected(self: Any, shared: Any, its_committer: Any, consumer: Any) -> None:
        connect(self, shared, its_committer, consumer)
        commit = consumer.commit
        before: dict[TopicPartition, OffsetAndMetadata] = {}

        async def late(offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
            await commit(offsets)
            again = {tp: before[tp] for tp in offsets if tp in before}
            before.update(offsets)
            if again:
                await commit(again)

        consumer.commit = late

    patch.setattr(Assignment, "connect", connected)


def drain_goes_on(patch: pytest.MonkeyPatch) -> None:
    def stop_admission(self: Any) -> None:
        if self.lost:
            self.running = False

    patch.setattr(Partition, "_stop_admission", stop_admission)


def abandoned_is_done(patch: pytest.MonkeyPatch) -> None:
    finish = Partition.finish

    def finished(self: Any, run: Run, outcome: Any) -> None:
        finish(self, run, SUCCESS if outcome.kind is Kind.ABANDONED else outcome)

    patch.setattr(Partition, "finish", finished)


def cut_short_is_done(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shutdown.Shutdown, "wrap", lambda _, inner: inner)
    patch.setattr(straight, "unless_cut_short", lambda _, outcome: outcome)


def transient_is_done(patch: pytest.MonkeyPatch) -> None:
    async def ended(_: Any, run: Any, outcome: Any) -> Any:
        return outcome

    patch.setattr(retry.Retry, "ended", ended)


def more_admitted(patch: pytest.MonkeyPatch) -> None:
    shared = Shared

    def doubled(**options: Any) -> Any:
        return shared(**{**options, "max_uncommitted": 2 * options["max_uncommitted"]})

    patch.setattr("prosody.consume.consumer.Shared", doubled)


def more_permits(patch: pytest.MonkeyPatch) -> None:
    made = scheduler.Scheduler.__init__
    patch.setattr(
        scheduler.Scheduler, "__init__", lambda self, limit, *more: made(self, limit + 1, *more)
    )


def no_regular_commits(patch: pytest.MonkeyPatch) -> None:
    async def run(_: Any) -> None:
        await asyncio.get_running_loop().create_future()

    patch.setattr(Committer, "run", run)


def commits_stop_at_a_failure(patch: pytest.MonkeyPatch) -> None:
    note = Committer._note_failure

    def gives_up(self: Any, error: BrokerError, sent: Any) -> None:
        note(self, error, sent)
        self._interval_s = 1e9

    patch.setattr(Committer, "_note_failure", gives_up)


def polls_stop_at_a_failure(patch: pytest.MonkeyPatch) -> None:
    async def pause(*_: Any) -> None:
        await asyncio.get_running_loop().create_future()

    from prosody.consume import poller

    def give_up(self: Any, _: BrokerError) -> None:
        self._interval_s = 1e9

    patch.setattr(poller.Poller, "_note_failure", give_up)


def lanes_stay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lanes.Lanes, "close", lambda _: None)


def done_when_admitted(patch: pytest.MonkeyPatch) -> None:
    push, finish, plain = Partition.push, Partition.finish, inbox.Admission

    def early(self: Any, run: Run, now: float) -> None:
        self.tracker.complete(run.record.offset)  # type: ignore[union-attr]  # no timer here
        push(self, run, now)

    def plain_early(partition: Any, *, push: Any, **calls: Any) -> Any:
        def pushed(key: str, run: Run) -> Any:
            partition.tracker.complete(run.record.offset)  # type: ignore[union-attr]
            return push(key, run)

        return plain(partition, push=pushed, **calls)

    def late(self: Any, run: Run, outcome: Any) -> None:
        tracker, self.tracker = self.tracker, _Deaf()
        try:
            finish(self, run, outcome)
        finally:
            self.tracker = tracker

    patch.setattr(Partition, "push", early)
    patch.setattr(inbox, "Admission", plain_early)
    patch.setattr(Partition, "finish", late)


class _Deaf:
    """A tracker that takes no notice."""

    def complete(self, _: int) -> None:
        return


MUTANTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "a revoke does not wait for handlers": (no_drain, "L2"),
    "no last commit": (no_last_commit, "L5"),
    "the last commit is not repeated": (last_commit_tried_once, "L5"),
    "released before the drain and the last commit": (released_at_once, "L2"),
    "kept partitions begin again where they were committed": (kept_partitions_begin_again, "L5"),
    "a commit is too high by one": (one_too_high, "L3"),
    "no single flight": (no_single_flight, "L2"),
    "no note is written": (no_note_written, "L5"),
    "the note is not read": (note_not_read, "L5"),
    "what the note said is not passed on": (note_not_passed_on, "L5"),
    "the note says too much": (note_of_another_offset, "L3"),
    "a commit by who has lost the partition is taken": (commits_by_anyone, "L3"),
    "a lost partition goes on": (lost_goes_on, "L2"),
    "a lost partition's handlers are not cancelled": (lost_does_not_cancel, "L2"),
    "a drain goes on admitting": (drain_goes_on, "L2"),
    "what does not end is left behind at 300 %": (abandons_late, "L4"),
    "the newest of a key comes first": (newest_first, "L1"),
    "a commit goes back": (commits_go_back, "L3"),
    "an abandoned run is done": (abandoned_is_done, "L3"),
    "a run cut short is done": (cut_short_is_done, "L"),
    "a transient failure is done": (transient_is_done, "L3"),
    "a record is done when it is admitted": (done_when_admitted, "L3"),
    "more is admitted than max_uncommitted": (more_admitted, "limit"),
    "more handlers run than max_concurrency": (more_permits, "limit"),
    "no regular commits": (no_regular_commits, "L5"),
    "commits end at the first failure": (commits_stop_at_a_failure, "L"),
    "polls end at the first failure": (polls_stop_at_a_failure, "L4"),
    "lanes are left behind": (lanes_stay, "L4"),
}
"""What each does, and how a fault that shows it begins."""
