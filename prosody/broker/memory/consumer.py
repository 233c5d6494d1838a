"""A member of a group in the embedded broker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import TYPE_CHECKING

from prosody.broker.memory.group import Member
from prosody.broker.protocol import TopicPartition
from prosody.errors import BrokerError, TopicsNotFoundError
from prosody.runtime import give_way

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from prosody.broker.memory.cluster import MemoryCluster
    from prosody.broker.memory.group import Step
    from prosody.broker.memory.log import MemoryRecord, PartitionLog
    from prosody.broker.protocol import ConsumerSettings, OffsetAndMetadata, RebalanceListener
    from prosody.runtime import Runtime

_log = logging.getLogger(__name__)


class _Position:
    """Where a held partition is read."""

    __slots__ = ("log", "offset", "ready")

    def __init__(self, log: PartitionLog, offset: int) -> None:
        self.log = log
        self.offset = offset
        self.ready = False
        """Whether it may be polled: after ``on_assigned``, until ``on_revoked``."""


class MemoryConsumer:
    """Implements ``BrokerConsumer``.

    Of the settings, ``session_timeout_s``, ``fetch_bytes``, ``assignor`` and ``metadata_max_age_s``
    mean nothing here: a member is alive as long as its loop is open, nothing is fetched ahead, the
    one assignor is sticky and balanced, and changes of topics are seen at once.
    """

    def __init__(
        self,
        cluster: MemoryCluster,
        settings: ConsumerSettings,
        *,
        runtime: Runtime,
        auto_create_topics: bool,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._runtime = runtime
        self._auto_create_topics = auto_create_topics
        self._group = cluster.group(settings.group_id)
        self._held: dict[TopicPartition, _Position] = {}
        """Ordered: the partition that gave records last comes last in the next poll."""
        self._woken = False
        self._waiter: asyncio.Future[None] | None = None
        self._stopped = False
        # Made in start(): a loop is needed.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: RebalanceListener | None = None
        self._member: Member | None = None
        self._steps_changed = asyncio.Event()
        self._follower: asyncio.Task[None] | None = None

    # -- joining and leaving ------------------------------------------------------------------

    async def start(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        if self._loop is not None or self._stopped:
            raise BrokerError("this consumer was started before; make a new one", retriable=False)
        self._call("start")
        plain = frozenset(t for t in topics if not t.startswith("^"))
        patterns = []
        for topic in topics:
            if topic.startswith("^"):
                try:
                    patterns.append(re.compile(topic))
                except re.error as error:
                    raise BrokerError(
                        f"topic {topic!r} is no regular expression: {error}", retriable=False
                    ) from error
        if self._auto_create_topics:
            self._cluster.ensure_topics(plain)
        elif missing := plain - self._cluster.topics():
            raise TopicsNotFoundError(sorted(missing))
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._member = self._join(plain, tuple(patterns))
        self._follower = asyncio.create_task(
            self._follow(), name=f"memory group {self._settings.group_id}"
        )

    def _join(self, topics: frozenset[str], patterns: tuple[re.Pattern[str], ...]) -> Member:
        assert self._loop is not None
        member = Member(
            self._settings.client_id,
            topics,
            patterns,
            rebalance_timeout_s=self._settings.rebalance_timeout_s,
            clock=self._runtime.monotonic,
            loop=self._loop,
            notify=self._notify_from_anywhere,
        )
        self._cluster.join(self._group, member)
        return member

    async def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._held.clear()
        self._wake_waiter()
        if self._member is None or self._follower is None:
            return
        self._cluster.leave(self._group, self._member)
        if asyncio.current_task() is self._follower:
            return  # called by the listener: the follower ends when that returns
        self._follower.cancel()
        # A listener that refuses to be cancelled must not hold up the program's end for ever.
        await asyncio.wait((self._follower,), timeout=self._settings.rebalance_timeout_s)

    # -- following the group ------------------------------------------------------------------

    async def _follow(self) -> None:
        """Go from what is held to what the group wants, one listener call at a time, until stopped."""
        while not self._stopped:
            member = self._member
            assert member is not None
            self._steps_changed.clear()
            with self._cluster.lock:
                step = self._group.next_step(member, self._held)
                wait_s = None if step else self._group.wait_s(member)
                if step and step.kind == "assign":
                    self._take(step.partitions)
            if step is not None:
                await self._do(step)
                if not member.alive and step.kind == "lost" and not self._stopped:
                    self._member = self._join(member.topics, member.patterns)
                continue
            try:
                async with asyncio.timeout(wait_s):
                    await self._steps_changed.wait()
            except TimeoutError:
                # Somebody did not hand over in time: then he goes, and this member goes on.
                self._cluster.expel_overdue(self._group)

    def _take(self, partitions: frozenset[TopicPartition]) -> None:
        for tp in sorted(partitions):
            log = self._cluster.log(tp)
            assert log is not None, f"{tp} assigned and not there"
            committed = self._group.committed.get(tp)
            self._held[tp] = _Position(log, log.start if committed is None else committed.offset)

    async def _do(self, step: Step) -> None:
        listener = self._listener
        assert listener is not None
        assert self._member is not None
        partitions = step.partitions
        try:
            if step.kind == "assign":
                await listener.on_assigned(partitions)
            elif step.kind == "revoke":
                for tp in partitions:
                    self._held[tp].ready = False
                await listener.on_revoked(partitions)
            else:
                for tp in partitions:
                    self._held.pop(tp, None)
                if partitions:
                    await listener.on_lost(partitions)
        except Exception:  # noqa: BLE001
            # Listeners do not raise. If one does, the group must still go on: a partition that is
            # never handed over would stop a member that did nothing wrong.
            _log.exception("rebalance listener failed: %s of %s", step.kind, sorted(partitions))
        if step.kind == "assign":
            for tp in partitions & self._held.keys():
                self._held[tp].ready = True
            self._wake_waiter()
        elif step.kind == "revoke":
            for tp in partitions:
                self._held.pop(tp, None)
            with self._cluster.lock:
                self._group.release(self._member, partitions)

    # -- reading ------------------------------------------------------------------------------

    async def poll(
        self, partitions: Collection[TopicPartition], *, max_records: int, timeout_s: float
    ) -> Mapping[TopicPartition, Sequence[MemoryRecord]]:
        self._call("poll")
        loop = self._running()
        if self._waiter is not None:
            raise BrokerError("another poll of this consumer is waiting", retriable=False)
        asked = frozenset(partitions)
        # Before anything is taken, so that a cancelled poll loses nothing. Without it, a loop of polls
        # that always find something would let nobody else run.
        await give_way()
        expired = timeout_s <= 0
        timer: asyncio.TimerHandle | None = None
        watched: set[PartitionLog] = set()

        def expire() -> None:
            # A flag and not another look at the clock: timers may fire a tick before their time.
            nonlocal expired
            expired = True
            self._wake_waiter()

        try:
            while True:
                with self._cluster.lock:
                    taken = self._read(asked, max_records)
                    if taken or self._woken or expired or self._stopped:
                        self._woken = False
                        return taken
                    watched |= self._watch(asked)
                if timer is None:
                    timer = loop.call_later(timeout_s, expire)
                self._waiter = loop.create_future()
                await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
                with self._cluster.lock:
                    for log in watched:
                        log.unwatch(self)

    def _watch(self, asked: frozenset[TopicPartition]) -> set[PartitionLog]:
        logs = {p.log for tp, p in self._held.items() if p.ready and tp in asked}
        for log in logs:
            log.watch(self)
        return logs

    def _read(
        self, asked: frozenset[TopicPartition], max_records: int
    ) -> dict[TopicPartition, Sequence[MemoryRecord]]:
        taken: dict[TopicPartition, Sequence[MemoryRecord]] = {}
        if self._member is None or not self._member.alive:
            return taken  # thrown out; the follower is about to say so
        for tp, position in self._held.items():
            if not position.ready or tp not in asked:
                continue
            if records := position.log.read(position.offset, max_records):
                position.offset = records[-1].offset + 1
                taken[tp] = records
                max_records -= len(records)
                if max_records <= 0:
                    break
        for tp in taken:
            self._held[tp] = self._held.pop(tp)
        return taken

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if (position := self._held.get(partition)) is None:
            raise BrokerError(
                f"seek refused: {partition[0]}:{partition[1]} is not assigned", retriable=False
            )
        position.offset = offset
        self._wake_waiter()

    # -- offsets ------------------------------------------------------------------------------

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        self._call("commit")
        self._running()
        assert self._member is not None
        with self._cluster.lock:
            self._group.commit(self._member, offsets)

    async def committed(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, OffsetAndMetadata | None]:
        self._call("committed")
        self._running()
        with self._cluster.lock:
            return {TopicPartition(*tp): self._group.committed.get(tp) for tp in partitions}

    async def end_offsets(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        self._call("end_offsets")
        self._running()
        ends: dict[TopicPartition, int] = {}
        with self._cluster.lock:
            for tp in partitions:
                if (log := self._cluster.log(tp)) is None:
                    raise BrokerError(f"partition {tp[0]}:{tp[1]} does not exist", retriable=True)
                ends[TopicPartition(*tp)] = log.end
        return ends

    # -- waking -------------------------------------------------------------------------------

    def wake(self) -> None:
        self._woken = True
        self._wake_waiter()

    def _wake_waiter(self) -> None:
        """Let a waiting poll look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def wake_from_anywhere(self) -> None:
        """A watched log has grown; see ``Watcher``."""
        self._run_on_loop(self._wake_waiter)

    def _notify_from_anywhere(self) -> None:
        self._run_on_loop(self._steps_changed.set)

    def _run_on_loop(self, callback: Callable[[], object]) -> None:
        loop = self._loop
        assert loop is not None
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None  # a plain thread
        if running is loop:
            callback()
            return
        # It raises when the loop is closed: that member is a ghost, which the next rebalance removes.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(callback)

    # -- state --------------------------------------------------------------------------------

    def _call(self, name: str) -> None:
        if (on_call := self._cluster.on_call) is not None:
            on_call(name, self._settings.client_id)

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._stopped:
            state = "stopped" if self._stopped else "not started"
            raise BrokerError(f"this consumer is {state}", retriable=False)
        return self._loop
