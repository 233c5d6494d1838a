"""What metrics tell of a consumer: read in its event loop, from what its parts hold anyway."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from prosody.errors import BrokerError
from prosody.model.run import WorkClass
from prosody.observe import metric_table as table
from prosody.observe.handling import Handling
from prosody.observe.spans import KAFKA
from prosody.stores.protocol import DeferredKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prosody.broker.protocol import TopicPartition
    from prosody.consume.counts import Counts
    from prosody.consume.inside import Inside
    from prosody.consume.partition import Partition
    from prosody.middleware.dead_letter import DeadLetterWriter
    from prosody.observe.buckets import Series
    from prosody.observe.metric_table import Metric
    from prosody.observe.metrics import Metrics, Numbers

    _Put = Callable[[Metric, Series, float], None]

_log = logging.getLogger("prosody.metrics")

ENDS_S: Final = 10.0
"""Between two questions for the ends of the logs, which lag is measured to."""

ENDS_S_MAX: Final = 5.0
"""How long such a question may take."""


class Metering:
    """One subscription for its client's metrics. Looked after by the watch; does nothing unless wanted."""

    def __init__(
        self,
        metrics: Metrics,
        inside: Inside,
        counts: Counts,
        dead_letters: DeadLetterWriter | None,
    ) -> None:
        self.metrics = metrics
        self._inside = inside
        self._counts = counts
        self._dead_letters = dead_letters
        self._group = metrics.group
        self._handling = Handling(metrics.handled, metrics.group)
        self._ends: Mapping[TopicPartition, int] = {}
        """The ends of the logs when they were asked for last."""
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """The subscription has begun."""
        self.metrics.begin(self)
        self.look()

    def look(self) -> None:
        """Called from time to time: measure if somebody wants it, and publish what is now."""
        metrics = self.metrics
        metrics.look()
        self._inside.stack.scheduler.note = self._handling if metrics.on else None
        if not metrics.on:
            return
        if metrics.meter is not None:
            metrics.read()
            metrics.hand_over()
        self._ask_for_ends()

    def end(self) -> None:
        """The subscription has ended. Can be repeated."""
        self._inside.stack.scheduler.note = None
        self.metrics.end(self)
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    # -- the ends of the logs ---------------------------------------------------------------------

    def _ask_for_ends(self) -> None:
        now = self._inside.runtime.monotonic()
        held = [p.topic_partition for p in self._inside.assignment.partitions()]
        if self._asking is not None or not held:
            return
        known = self._ends.keys() >= set(held)
        if now - self._asked_at < (ENDS_S if known else ENDS_S_MAX):
            return
        self._asked_at = now
        self._asking = asyncio.get_running_loop().create_task(
            self._ask(held), name="prosody-log-ends"
        )

    async def _ask(self, held: list[TopicPartition]) -> None:
        try:
            async with asyncio.timeout(ENDS_S_MAX):
                self._ends = await self._inside.broker.end_offsets(held)
        except (BrokerError, TimeoutError) as error:
            # The ends known before still hold as lower bounds; what is wrong is told by others.
            _log.debug("the ends of the logs cannot be had at present: %s", error)
        finally:
            self._asking = None

    # -- reading ----------------------------------------------------------------------------------

    def read(self) -> Numbers:
        """All counters and gauges as they are now, ages as the time since when."""
        found: Numbers = {}
        inside, group = self._inside, (self._group,)

        def put(metric: Metric, series: Series, value: float) -> None:
            found.setdefault(metric.name, {})[series] = value

        held = inside.assignment.partitions()
        put(table.READY, group, int(inside.not_ready() is None))
        put(table.STALLED, group, len(inside.stalled()))
        put(table.ASSIGNED, group, len(held))
        for partition in held:
            topic, number = partition.topic_partition
            of_partition = (self._group, topic, str(number))
            for metric, value in self._of_partition(partition):
                put(metric, of_partition, value)
            if partition.deferrals is not None:
                for kind, count in partition.deferrals.keys.items():
                    put(table.DEFERRED_KEYS, (*of_partition, _EVENTS[kind]), count)
        for metric, value in self._of_group():
            put(metric, group, value)
        for name, share in self._shares():
            put(table.CLASS_SHARE, (self._group, name), share)
        self._put_counts(put)
        return found

    def _of_partition(self, partition: Partition) -> Iterable[tuple[Metric, float]]:
        runtime, progress = self._inside.runtime, partition.progress
        committed = progress.committed
        if committed is not None:
            place = partition.topic_partition
            fetched = self._inside.broker.known_end(place) or 0
            end = max(self._ends.get(place, 0), fetched, progress.known_end)
            yield table.LAG, max(end - committed.offset, 0)
        yield table.UNCOMMITTED, partition.tracker.outstanding
        yield table.IN_FLIGHT, len(partition.runs) - partition.waiting
        yield table.WAITING, partition.waiting
        yield table.QUEUED, partition.queue.queued
        oldest = partition.tracker.oldest()
        if oldest is not None:
            yield table.OLDEST_AGE, oldest[1]
        if partition.durable is not None:
            yield table.TIMERS_PENDING, partition.durable.timers.pending
        if partition.deferrals is not None and partition.deferrals.oldest is not None:
            # Known on the wall clock; ages are told by the other one.
            age_s = runtime.wall() - partition.deferrals.oldest
            yield table.DEFERRED_AGE, runtime.monotonic() - age_s

    def _of_group(self) -> Iterable[tuple[Metric, float]]:
        stack, stores = self._inside.stack, self._inside.stores
        scheduler = stack.scheduler
        yield table.FAULTS, self._counts.restarts
        yield table.PERMITS_LIMIT, scheduler.limit
        yield table.PERMITS_USED, scheduler.in_use
        yield table.SCHEDULER_WAITING, scheduler.waiting
        yield table.TIMEOUTS, stack.timeout.cancelled
        if stack.monopolization is not None:
            yield table.REFUSALS, stack.monopolization.refusals
        if stack.retry is not None:
            yield table.RETRIES, stack.retry.retries
        if stack.defer is not None:
            yield table.DEFERRED, stack.defer.deferred + stack.defer.appended
        if stack.redelivery is not None:
            yield table.REDELIVERED, stack.redelivery.retried
        if stack.gate is not None:
            yield table.DEFERRAL_CLOSED, int(stack.gate.closed)
        if stack.deduplication is not None:
            yield table.DEDUP_HITS, stack.deduplication.hits
        if self._dead_letters is not None:
            yield table.DEAD_LETTERS, self._dead_letters.written
        if stores is not None:
            yield table.STORE_UP, int(stores.problem is None)

    def _shares(self) -> Iterable[tuple[str, float]]:
        scheduler, now = self._inside.stack.scheduler, self._inside.runtime.monotonic()
        used = {each: scheduler.class_time(each, now) for each in WorkClass}
        total = sum(used.values())
        for each, used_s in used.items():
            yield each.name.lower(), used_s / total if total > 0.0 else 0.0

    def _put_counts(self, put: _Put) -> None:
        counts, group = self._counts, self._group
        for topic, of in counts.topics.items():
            put(table.CONSUMED, (KAFKA, table.POLL, topic, group), of.consumed)
            put(table.SKIPPED, (group, topic), of.skipped)
            put(table.UNDECODABLE, (group, topic), of.undecodable)
        for change in ("assigned", "revoked", "lost"):
            put(table.REBALANCES, (group, change), getattr(counts, change))
        if self._inside.stores is None:
            return
        deduplication = self._inside.stack.deduplication
        errors = dict(counts.store_errors)
        if deduplication is not None:
            errors["dedup"] = deduplication.unread + deduplication.unrecorded
        for store in ("timers", "deferred", "dedup"):
            put(table.STORE_ERRORS, (group, store), errors.get(store, 0))


_EVENTS: Final = {DeferredKind.MESSAGE: "message", DeferredKind.TIMER: "timer"}
