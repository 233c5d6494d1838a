"""Looks after a subscription from time to time, and tells once what is wrong, and once that it is over.

Partitions and timers that stand still, a connection that is lost, an event loop that is held up.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from prosody.consume.doing import doing, iso_of
from prosody.consume.inside import run_of
from prosody.consume.partition import Partition
from prosody.model.fields import fields, fields_of
from prosody.model.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prosody.broker.protocol import BrokerConsumer
    from prosody.consume.assignment import Assignment
    from prosody.consume.poller import Poller
    from prosody.consume.steps import Steps
    from prosody.middleware.scheduler import Scheduler
    from prosody.middleware.timeout import Lane
    from prosody.observe.storm import Storms
    from prosody.runtime import Runtime

_log = logging.getLogger("prosody.watch")

LOOK_S = 0.5
"""Time between two looks."""

LOST_S = 2.0
"""A connection away for less is not worth a line: brokers restart, leaders and coordinators move."""


def _nothing() -> None:
    """There is nothing to do."""


class Watch:
    """The loop that looks. ``stalled`` answers for probes at any time, without it."""

    def __init__(
        self,
        consumer: BrokerConsumer,
        assignment: Assignment,
        poller: Poller,
        scheduler: Scheduler,
        steps: Steps,
        storms: Storms,
        lanes: Callable[[], Iterable[Lane]],
        stall_threshold_s: float,
        runtime: Runtime,
    ) -> None:
        self._consumer = consumer
        self._assignment = assignment
        self._poller = poller
        self._scheduler = scheduler
        self._steps = steps
        self._storms = storms
        self._lanes = lanes
        self._threshold_s = stall_threshold_s
        self._runtime = runtime
        self._told: dict[Partition | Poller | Run, tuple[float, str]] = {}
        """What was told to be stalled: when, and its name."""
        self.each_look: Callable[[], None] = _nothing
        """Called at each look; what is to be done now and then."""
        self._lost_since: float | None = None
        self._lost_told = False
        self._lost_last = float("-inf")
        """When the connection was last seen to be lost, as an excuse for the poll loop."""

    async def run(self) -> None:
        """Look every half second until cancelled."""
        while True:
            self._steps.expect(self._runtime.monotonic() + LOOK_S)
            await self._runtime.sleep(LOOK_S)
            now = self._runtime.monotonic()
            self._steps.arrived(now)
            self._look_at_connection(now)
            self._look_at_stalls(now)
            self._storms.settle()
            self.each_look()

    def stalled(self) -> list[str]:
        """What stands still for ``stall_threshold`` or longer, a text each."""
        return [text for _, _, text in self._stalls(self._runtime.monotonic())]

    def _look_at_connection(self, now: float) -> None:
        problem = self._consumer.problem
        if problem is None:
            if self._lost_told and self._lost_since is not None:
                _log.info("connection to Kafka is back after %.1f s", now - self._lost_since)
            self._lost_since = None
            self._lost_told = False
            return
        if self._poller not in self._told:
            self._lost_last = now
        if self._lost_since is None:
            self._lost_since = now
        if not self._lost_told and now - self._lost_since >= LOST_S:
            self._lost_told = True
            _log.warning(
                "connection to Kafka lost: %s; consumption goes on by itself when it is back",
                problem,
            )

    def _look_at_stalls(self, now: float) -> None:
        stalls = {what: (name, text) for what, name, text in self._stalls(now)}
        for what, (name, text) in stalls.items():
            if what not in self._told:
                self._told[what] = (now, name)
                _log.error(
                    "stalled: %s (stall_threshold is %.3g s)",
                    text,
                    self._threshold_s,
                    extra=_about(what),
                )
        held = {self._poller, *self._assignment.partitions()}
        for what in [what for what in self._told if what not in stalls]:
            told_at, name = self._told.pop(what)
            # Of one that was given up, the revoke or the loss has told what became of it.
            if getattr(what, "partition", what) in held:
                _log.info(
                    "%s moves again, %.0f s after it was told to be stalled",
                    name,
                    now - told_at,
                    extra=_about(what),
                )

    def _stalls(self, now: float) -> Iterator[tuple[Partition | Poller | Run, str, str]]:
        """What stands still, its name, and a text about it."""
        # A poll that fails for lack of a connection is not at fault: that is for readiness to tell,
        # and to start the process again would not help.
        idle_s = now - max(self._poller.last_poll, self._lost_last)
        if idle_s >= self._threshold_s:
            yield self._poller, "the poll loop", f"no poll has succeeded for {idle_s:.0f} s"
        held = self._assignment.partitions()
        for partition in held:
            if partition.is_stalled(now, self._threshold_s):
                yield partition, partition.name, self._oldest(partition, now)
        # What a timer runs holds no offset back. Its attempt counts, and no wait: it ends by itself, and a
        # timer whose store is away is not to have the process started again.
        for lane in self._lanes():
            run = lane.run
            if run is None or run.timer is None or not run.handling or run.partition not in held:
                continue
            if now - run.began >= self._threshold_s:
                since = iso_of(self._runtime, run.began)
                what = doing(run, self._scheduler, self._runtime)
                yield run, run.where(), f"{run.where()} is unfinished since {since}: {what}"

    def _oldest(self, partition: Partition, now: float) -> str:
        """The oldest unfinished record of a stalled partition, how old it is, and what it waits for."""
        oldest = partition.tracker.oldest()
        assert oldest is not None, "a partition without unfinished records is not stalled"
        offset, since = oldest
        age = f"is unfinished for {now - since:.0f} s"
        # The first message of its key, as those before it there are older.
        run = run_of(partition, offset)
        if run is not None:
            return f"{run.where()} {age}: {doing(run, self._scheduler, self._runtime)}"
        if partition.running:
            why = "it waits behind a timer or a deferred message of its key"
        else:
            why = "its partition starts nothing more"
        return f"{partition.name} offset {offset} {age}: {why}"


def _about(what: Partition | Poller | Run) -> dict[str, Any]:
    """What a line about a stall is about: the run, or the partition with its oldest message."""
    if isinstance(what, Run):
        return fields(what)
    if not isinstance(what, Partition):
        return {}
    oldest = what.tracker.oldest()
    if oldest is None:
        return fields_of(what.topic_partition)
    run = run_of(what, oldest[0])
    return fields_of(what.topic_partition, oldest[0]) if run is None else fields(run)
