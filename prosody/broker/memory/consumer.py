"""A member of a group in the embedded broker."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING

from prosody.broker.memory.faults import UNREACHABLE
from prosody.broker.memory.following import Follower
from prosody.broker.memory.group import Member
from prosody.broker.protocol import TopicPartition
from prosody.errors import BrokerError, TopicsNotFoundError
from prosody.runtime import give_way

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from prosody.broker.listeners import RebalanceListener, Taker
    from prosody.broker.memory.cluster import MemoryCluster
    from prosody.broker.memory.log import MemoryRecord, PartitionLog
    from prosody.broker.protocol import ConsumerSettings, OffsetAndMetadata
    from prosody.runtime import Runtime


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
        self.taker: Taker | None = None  # never asked: nothing is between a log and its polls
        self._woken = False
        self._waiter: asyncio.Future[None] | None = None
        self._unsettled: set[asyncio.Future[None]] = set()
        """The calls of ``settled`` that wait."""
        self._state = "not started"
        self._loop: asyncio.AbstractEventLoop | None = None  # from start() on
        self._follower: Follower | None = None

    # -- joining and leaving ------------------------------------------------------------------

    async def start(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        if self._state != "not started":
            raise BrokerError("this consumer was started before; make a new one", retriable=False)
        self._cluster.enter("start", self._settings.client_id)
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
        self._loop = loop = asyncio.get_running_loop()
        self._state = "running"

        def make_member() -> Member:
            return Member(
                self._settings.client_id,
                plain,
                tuple(patterns),
                rebalance_timeout_s=self._settings.rebalance_timeout_s,
                clock=self._runtime.monotonic,
                loop=loop,
                notify=self._notify_from_anywhere,
                vanish=self._vanish_from_anywhere,
            )

        self._follower = Follower(
            self._cluster,
            self._group,
            self._settings,
            listener,
            make_member=make_member,
            on_ready=self._wake_waiter,
        )

    def leaving(self) -> None:
        if self._state == "running" and self._follower is not None:
            self._cluster.leave_soon(self._group, self._follower.member)

    async def stop(self) -> None:
        if self._state == "stopped":
            return
        crashed = self._state == "crashed"
        self._state = "stopped"
        if self._follower is None:
            return
        self._follower.end()
        self._look()
        if not crashed:
            self._cluster.leave(self._group, self._follower.member)
        await self._follower.ended()

    def crash(self) -> None:
        """Vanish, as a process does that is killed: no listener call, no leaving; every call fails.

        Listener calls under way are cancelled. The group learns of it only by ``MemoryCluster.expel``,
        and until then counts this as a member, with all it holds. ``stop`` waits for what was cancelled.
        """
        if self._state != "running" or self._follower is None:
            return
        self._state = "crashed"
        member = self._follower.member
        with self._cluster.lock:
            member.dead = True
            self._group.gone.discard(member)
        self._follower.end()
        self._look()

    # -- reading ------------------------------------------------------------------------------

    async def poll(
        self, partitions: Collection[TopicPartition], *, max_records: int, timeout_s: float
    ) -> Mapping[TopicPartition, Sequence[MemoryRecord]]:
        self._cluster.enter("poll", self._settings.client_id)
        loop, follower = self._running()
        if self._waiter is not None:
            raise BrokerError("another poll of this consumer is waiting", retriable=False)
        asked = frozenset(partitions)
        # Before anything is taken, so that a cancelled poll loses nothing. Without it, a loop of polls
        # that always find something would let nobody else run.
        await give_way()
        expired = timeout_s <= 0
        timer: asyncio.TimerHandle | None = None
        watched: set[PartitionLog] = set()
        warnings: list[tuple[TopicPartition, str]] = []

        def expire() -> None:
            # A flag and not another look at the clock: timers may fire a tick before their time.
            nonlocal expired
            expired = True
            self._wake_waiter()

        try:
            while True:
                if self._cluster.down:
                    raise BrokerError(f"poll: {UNREACHABLE}", retriable=True)
                if self._state == "crashed":
                    self._running()
                with self._cluster.lock:
                    taken = follower.read(asked, max_records, warnings)
                    if taken or self._woken or expired or self._state != "running":
                        self._woken = False
                        return taken
                    follower.held.watch(asked, self, watched)
                if timer is None:
                    timer = loop.call_later(timeout_s, expire)
                self._waiter = loop.create_future()
                await self._waiter
        finally:
            self._waiter = None
            for tp, warning in warnings:
                follower.warn(tp, warning)
            if timer is not None:
                timer.cancel()
                with self._cluster.lock:
                    for log in watched:
                        log.unwatch(self)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        held = self._follower.held if self._follower is not None else {}
        with self._cluster.lock:
            if (position := held.get(partition)) is None:
                raise BrokerError(
                    f"seek refused: {partition[0]}:{partition[1]} is not assigned", retriable=False
                )
            position.seek(offset)
        self._look()

    # -- offsets ------------------------------------------------------------------------------

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        self._cluster.enter("commit", self._settings.client_id)
        _, follower = self._running()
        with self._cluster.lock:
            self._group.commit(follower.member, offsets, self._cluster.max_metadata_chars)

    async def settled(self) -> None:
        loop, _ = self._running()
        while self._group.unsettled and self._state == "running":
            waiter = loop.create_future()
            self._unsettled.add(waiter)
            try:
                await waiter
            finally:
                self._unsettled.discard(waiter)

    async def committed(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, OffsetAndMetadata | None]:
        self._cluster.enter("committed", self._settings.client_id)
        self._running()
        with self._cluster.lock:
            return {TopicPartition(*tp): self._group.committed.get(tp) for tp in partitions}

    async def end_offsets(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        self._cluster.enter("end_offsets", self._settings.client_id)
        self._running()
        return self._cluster.ends(partitions)

    def known_end(self, partition: TopicPartition) -> int | None:
        position = None if self._follower is None else self._follower.held.get(partition)
        return None if position is None else position.log.end

    async def partition_count(self, topic: str) -> int:
        self._cluster.enter("partition_count", self._settings.client_id)
        self._running()
        return self._cluster.partition_count(topic)

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

    def _look(self) -> None:
        """Something has changed: whoever waits looks again."""
        if self._follower is not None:
            self._follower.look()
        self._wake_waiter()
        for waiter in self._unsettled:
            if not waiter.done():
                waiter.set_result(None)

    def _notify_from_anywhere(self) -> None:
        self._run_on_loop(self._look)

    def _vanish_from_anywhere(self) -> None:
        self._run_on_loop(self.crash)

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

    @property
    def unreadable(self) -> Mapping[TopicPartition, str]:
        return {}  # nothing is damaged or forbidden here

    @property
    def problem(self) -> str | None:
        if self._state != "running" or self._follower is None:
            return None
        if self._cluster.down:
            return UNREACHABLE
        member = self._follower.member
        if not (member.alive or member.news_held):
            return f"thrown out of group {self._settings.group_id!r}, joining again"
        return None

    def _running(self) -> tuple[asyncio.AbstractEventLoop, Follower]:
        if self._state != "running" or self._loop is None or self._follower is None:
            raise BrokerError(f"this consumer is {self._state}", retriable=False)
        return self._loop, self._follower
