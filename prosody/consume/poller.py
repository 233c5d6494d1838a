"""Asks the broker for records of the partitions that have room, and hands them over."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from prosody.errors import BrokerError
from prosody.model.fields import fields_of_all
from prosody.runtime import give_way

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prosody.broker.protocol import BrokerConsumer, Receiver, Record, TopicPartition
    from prosody.consume.assignment import Assignment
    from prosody.runtime import Runtime

_log = logging.getLogger("prosody.poll")

POLL_RECORDS_MAX = 1000
"""Records taken from the broker at once, so that one poll cannot hold the event loop for long."""

_FAILURE_PAUSE_S_MIN = 0.1


def _nothing() -> None:
    """There is nothing to look at."""


class Poller:
    """The loop between broker and partitions.

    ``poll_interval`` only bounds how long an idle poll waits, and paces polls that fail: data and
    room both end the wait at once.
    """

    def __init__(
        self,
        consumer: BrokerConsumer,
        assignment: Assignment,
        interval_s: float,
        runtime: Runtime,
    ) -> None:
        self._consumer = consumer
        consumer.taker = self
        self._assignment = assignment
        self._interval_s = interval_s
        self._runtime = runtime
        self._failing_since: float | None = None
        self._warned = False
        """Whether it was said that polls fail."""
        self._refusal: str | None = None
        """The refusal that was told last."""
        self._waiting = False
        self.each_turn: Callable[[], None] = _nothing
        """Called before what a poll brought is handed on; what is to be looked at now and then. Not for
        what comes while a poll waits, which ends soon enough."""
        self.hold: Callable[[], None] = _nothing
        """Called before records are taken that came while a poll waited."""
        self.begin: Callable[[], None] = _nothing
        """Called when all that came together is taken."""
        self._monotonic = runtime.monotonic
        self.last_poll = runtime.monotonic()
        """When the last poll returned; a poller that stands still shows here."""

    def want_records(self) -> None:
        """A partition has room: ask again, with it. No need while no poll is under way."""
        if self._waiting:
            self._consumer.wake()

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            wanted = [p.topic_partition for p in self._assignment.partitions() if p.wants_records]
            self._waiting = True
            try:
                polled = await self._consumer.poll(
                    wanted, max_records=POLL_RECORDS_MAX, timeout_s=self._interval_s
                )
            except BrokerError as error:
                # An outage is waited out: nothing polled is lost, and the group keeps the position.
                self._note_failure(error)
                await self._runtime.sleep(max(self._interval_s, _FAILURE_PAUSE_S_MIN))
                continue
            finally:
                self._waiting = False
            self._arrived()
            self.each_turn()
            for topic_partition, records in polled.items():
                partition = self._assignment.get(topic_partition)
                if partition is not None:
                    partition.receive(records)
            # A poll that finds data at once does not suspend: let the lanes have their turn.
            await give_way()

    # Called by the broker client while a poll waits

    def wants(self, partition: TopicPartition) -> Receiver | None:
        """The partition, if its records need not wait for the end of the poll."""
        found = self._assignment.get(partition)
        return found if found is not None and found.wants_records else None

    def take(self, brought: Sequence[tuple[Receiver, Sequence[Record]]]) -> None:
        """Hand on what the waiting poll would have brought."""
        # Partitions ask for more when they have admitted them, but this poll goes on for them anyway.
        self._waiting = False
        self.hold()
        try:
            self._arrived()
            for partition, records in brought:
                partition.receive(records)
        finally:
            self._waiting = True
            self.begin()

    def _arrived(self) -> None:
        self.last_poll = self._monotonic()
        # A partition that cannot be read fails one poll; the broker client tells when it can.
        if self._failing_since is not None and not self._consumer.unreadable:
            self._note_success(self._failing_since)

    def _note_failure(self, error: BrokerError) -> None:
        """Say it, once: of an outage that it began, of a refusal what it is."""
        if self._failing_since is None:
            self._failing_since = self._monotonic()
        if error.retriable:
            if not self._warned:
                self._warned = True
                _log.warning("polling fails, trying on: %s", error)
        elif (text := str(error)) != self._refusal:
            self._refusal = text
            # Most often a partition that cannot be read: the others go on.
            unreadable = self._consumer.unreadable.items()
            about = fields_of_all(tp for tp, why in unreadable if why == text)
            _log.error("polling is refused, trying on: %s", text, extra=about)

    def _note_success(self, failing_since: float) -> None:
        _log.info("polling succeeds again, after %.3g s", self._monotonic() - failing_since)
        self._failing_since = None
        self._warned = False
        self._refusal = None
