"""What a partition keeps in the stores: opened when it is assigned, closed when it is given up."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prosody.deferral.deferrals import Deferrals
from prosody.deferral.timer_calls import TimerCalls
from prosody.errors import BrokerError, StoreError
from prosody.model.backoff import backoff_s
from prosody.model.fields import fields_of
from prosody.model.message import Timer
from prosody.model.run import Run
from prosody.model.times import utc_from_seconds
from prosody.stores.protocol import Segment, TimerKind
from prosody.telemetry.reports import TimerReports
from prosody.timers.partition_timers import PartitionTimers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prosody.config.options_qos import DeferOptions
    from prosody.consume.partition import Partition
    from prosody.observe.storm import Storms
    from prosody.runtime import Runtime
    from prosody.stores.protocol import DeferStore, TimerStore, Trace
    from prosody.telemetry.buffer import Buffer
    from prosody.timers.due import DueTimer
    from prosody.timers.partition_timers import Change

_log = logging.getLogger("prosody.durable")

_AGAIN_BASE_S = 0.5
_AGAIN_MAX_S = 10.0
"""Bounds of the wait before a store that failed is asked again."""

SETTLE_S = 5.0
"""How long a partition that was given up waits for its last store operations."""


@dataclass(frozen=True, slots=True)
class Durables:
    """What the durable sides of all partitions of one subscription share."""

    timers: TimerStore
    deferred: DeferStore
    group_id: str
    deferring: DeferOptions | None
    """None in modes that defer nothing."""
    timers_max: int
    """Timers of a kind that a partition has queued or in their handlers at once."""
    partition_count: Callable[[str], Awaitable[int]]
    trace: Callable[[], Trace]
    """The W3C headers of the present span, kept with a timer."""
    runtime: Runtime
    storms: Storms
    told: set[Change] = field(default_factory=set)
    """Changes of topics' numbers of partitions that were told, once for all partitions."""
    events: Buffer | None = None
    """Where telemetry events go."""

    def of(self, partition: Partition) -> Durable:
        """The durable side of a partition; nothing happens before its ``start``."""
        return Durable(partition, self)


class Durable:
    """The durable side of one assignment of a partition.

    Where messages may be deferred, nothing is admitted before it is known which keys have deferred work:
    order comes before availability. In the other modes messages go on when the store is away, after
    one attempt to open it, and timer calls fail until it is back.
    """

    def __init__(self, partition: Partition, durables: Durables) -> None:
        topic, number = partition.topic_partition
        segment = Segment(durables.group_id, topic, number)
        self._partition = partition
        self._durables = durables
        self._deferring = durables.deferring is not None
        kinds = tuple(TimerKind) if self._deferring else (TimerKind.APPLICATION,)
        self.timers = PartitionTimers(
            segment,
            durables.timers,
            durables.runtime,
            self._fire,
            limit=durables.timers_max,
            kinds=kinds,
            storms=durables.storms,
            told=durables.told,
            reports=self._reports(),
        )
        self.deferrals = None
        if durables.deferring is not None:
            self.deferrals = Deferrals(
                segment,
                durables.deferred,
                self.timers,
                durables.deferring.defer_store_cache_size,
                durables.runtime,
                durables.storms,
            )
        self.calls = TimerCalls(self.timers, self.deferrals, durables.runtime, durables.trace)
        self._opening: asyncio.Task[None] | None = None
        self._problem: str | None = None
        self._storm = durables.storms.common(_log)
        self._about = fields_of(partition.topic_partition)

    def _reports(self) -> TimerReports | None:
        durables = self._durables
        if durables.events is None:
            return None
        place = self._partition.topic_partition
        return TimerReports(durables.events, place, durables.runtime, durables.trace)

    @property
    def problem(self) -> str | None:
        """What does not work at present, for logs and probes; None when all does."""
        deferring = None if self.deferrals is None else self.deferrals.problem
        return self._problem or self.timers.problem or deferring

    def start(self) -> None:
        """Open the segment, as soon as the store lets us; then fire timers, and let messages in."""
        self._opening = self._partition.loop.create_task(
            self._open(), name=f"prosody-open {self._partition.name}"
        )

    def drain(self) -> None:
        """Fire nothing more; calls of handlers that still run go on."""
        if self._opening is not None:
            self._opening.cancel()
        self.timers.hold()

    def stop(self) -> None:
        """The partition is given up: nothing is written any more."""
        self.drain()
        if self.deferrals is not None:
            self.deferrals.close()
        self.timers.stop()

    async def settled(self) -> None:
        """Wait for operations that are under way, not for long."""
        try:
            async with asyncio.timeout(SETTLE_S):
                await self.timers.settled()
        except TimeoutError:
            # The store has a deadline of its own; another owner may read before it.
            _log.warning(
                "%s is given up while store operations go on",
                self._partition.name,
                extra=self._about,
            )

    def _fire(self, timer: DueTimer) -> None:
        """Queue a timer that is due behind what its key has to do."""
        partition = self._partition
        if not partition.running:
            return  # it stays stored, for the next owner
        event = None
        if timer.kind is TimerKind.APPLICATION:
            event = Timer(timer.key, utc_from_seconds(timer.time))
        try:
            run = Run(partition, None, timer.key, event, timer=timer)
            run.awaited = partition.progress.awaited
            partition.push(run, self._durables.runtime.monotonic())
        except Exception as error:  # noqa: BLE001
            # A fault of ours: the partition starts again, and loads the timer anew.
            partition.fault(error)

    async def _open(self) -> None:
        try:
            failures = 0
            while (error := await self._try_to_open()) is not None:
                failures += 1
                self._tell(error)
                if not self._deferring:
                    self._partition.open()
                delay_s = backoff_s(
                    failures, _AGAIN_BASE_S, _AGAIN_MAX_S, self._durables.runtime.random()
                )
                await self._durables.runtime.sleep(delay_s)
            if self._problem is not None:
                self._problem = None
                self._works_again()
            self.timers.start()
            self._partition.open()
        except Exception as error:  # noqa: BLE001
            # A fault of ours: the partition starts again, as with any other.
            self._partition.fault(error)

    async def _try_to_open(self) -> Exception | None:
        try:
            count = await self._durables.partition_count(self._partition.topic_partition.topic)
            await self.timers.open(count)
            if self.deferrals is not None:
                await self.deferrals.open()
        except (BrokerError, StoreError) as error:
            return error
        return None

    def _works_again(self) -> None:
        more = self._storm.allows(logging.INFO, self._about)
        if more is not None:
            _log.info("%s: its store works again%s", self._partition.name, more, extra=self._about)

    def _tell(self, error: Exception) -> None:
        what = "waits for its store" if self._deferring else "has no timers at present"
        self._problem = f"{what}: {error}"
        more = self._storm.allows(logging.WARNING, self._about)
        if more is not None:
            _log.warning("%s %s%s", self._partition.name, self._problem, more, extra=self._about)
