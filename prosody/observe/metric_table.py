"""All metrics there are: name, kind, unit, attributes and meaning. The README's table says the same.

Names of the conventions are those of https://opentelemetry.io/docs/specs/semconv/messaging/messaging-metrics/;
a test compares them with the package of the conventions. A key is never an attribute: there is no limit to
how many keys there are, and each would make a series of its own.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from prosody.observe.spans import (
    DESTINATION,
    ERROR_TYPE,
    GROUP,
    OPERATION_NAME,
    PARTITION,
    SYSTEM,
)

POLL: Final = "poll"
COMMIT: Final = "commit"

WORK_CLASS: Final = "prosody.work_class"
"""``normal`` (first attempts) or ``failure`` (retries)."""
STORE: Final = "prosody.store"
"""``timers``, ``deferred`` or ``dedup``."""
CHANGE: Final = "prosody.change"
"""``assigned``, ``revoked`` or ``lost``."""
EVENT: Final = "prosody.event"
"""``message`` or ``timer``."""

BOUNDS_S: Final = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0
)  # fmt: skip
"""Bounds of all histograms, in seconds: those of the conventions."""


class Kind(enum.Enum):
    """How a metric behaves."""

    COUNTER = "counter"
    """Only grows, over all subscriptions of a client."""
    GAUGE = "gauge"
    """What is now; a series ends with what it is about."""
    HISTOGRAM = "histogram"


class Metric(NamedTuple):
    """One metric."""

    name: str
    kind: Kind
    unit: str
    """In UCUM's form: ``s``, ``1``, or what is counted in braces."""
    attributes: tuple[str, ...]
    """Their names; a series is known by their values, in this order. An empty value is left out."""
    meaning: str
    is_age: bool = False
    """It is held as the time since when, and told as how long ago that is."""


_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
_OF_GROUP = (GROUP,)
_OF_TOPIC = (GROUP, DESTINATION)
_OF_PARTITION = (GROUP, DESTINATION, PARTITION)

# -- those of the conventions ---------------------------------------------------------------------

PROCESS_DURATION = Metric(
    "messaging.process.duration", _H, "s",
    (SYSTEM, OPERATION_NAME, DESTINATION, GROUP, ERROR_TYPE),
    "Time that handlers took, an attempt each; the operation is `process` for messages, `timer` for timers",
)  # fmt: skip
OPERATION_DURATION = Metric(
    "messaging.client.operation.duration", _H, "s",
    (SYSTEM, OPERATION_NAME, DESTINATION, GROUP, ERROR_TYPE),
    "Time that a call to Kafka took; the operation is `send` (with a topic) or `commit` (with a group)",
)  # fmt: skip
CONSUMED = Metric(
    "messaging.client.consumed.messages", _C, "{message}",
    (SYSTEM, OPERATION_NAME, DESTINATION, GROUP),
    "Messages taken in for the handler; the operation is `poll`",
)  # fmt: skip
SENT = Metric(
    "messaging.client.sent.messages", _C, "{message}",
    (SYSTEM, OPERATION_NAME, DESTINATION, ERROR_TYPE),
    "Messages sent, or tried to (then with an error); dead letters too; the operation is `send`",
)  # fmt: skip

# -- health ---------------------------------------------------------------------------------------

READY = Metric(
    "prosody.consumer.ready", _G, "{consumer}", _OF_GROUP,
    "1 while `/readyz` would say so, else 0",
)  # fmt: skip
STALLED = Metric(
    "prosody.consumer.stalled", _G, "{component}", _OF_GROUP,
    "What stands still for `stall_threshold`: partitions, and the poll loop",
)  # fmt: skip
ASSIGNED = Metric(
    "prosody.partitions.assigned", _G, "{partition}", _OF_GROUP,
    "Partitions held now",
)  # fmt: skip
REBALANCES = Metric(
    "prosody.rebalance.partitions", _C, "{partition}", (GROUP, CHANGE),
    "Partitions that came or went: `assigned`, `revoked` by a rebalance, or `lost` with the session",
)  # fmt: skip
FAULTS = Metric(
    "prosody.partition.restarts", _C, "{restart}", _OF_GROUP,
    "Partitions that started again after a fault of this library",
)  # fmt: skip

# -- for each partition ---------------------------------------------------------------------------

LAG = Metric(
    "prosody.partition.lag", _G, "{message}", _OF_PARTITION,
    "Offsets from the committed one to the end of the log, which is asked for every 10 s",
)  # fmt: skip
UNCOMMITTED = Metric(
    "prosody.partition.uncommitted", _G, "{message}", _OF_PARTITION,
    "Records admitted and not finished",
)  # fmt: skip
IN_FLIGHT = Metric(
    "prosody.partition.in_flight", _G, "{event}", _OF_PARTITION,
    "Messages and timers in the stack: in a handler, in a backoff, or waiting for a store",
)  # fmt: skip
WAITING = Metric(
    "prosody.partition.waiting", _G, "{event}", _OF_PARTITION,
    "Messages and timers that wait for a first permit, or for the deduplication store before that",
)  # fmt: skip
QUEUED = Metric(
    "prosody.partition.queued", _G, "{event}", _OF_PARTITION,
    "Messages and timers behind another one of their key",
)  # fmt: skip
OLDEST_AGE = Metric(
    "prosody.partition.oldest.age", _G, "s", _OF_PARTITION,
    "How long ago the oldest unfinished record was admitted; no series while there is none",
    is_age=True,
)  # fmt: skip
TIMERS_PENDING = Metric(
    "prosody.partition.timers.pending", _G, "{timer}", _OF_PARTITION,
    "Timers in memory, retry timers of deferred work included: those due soon",
)  # fmt: skip
DEFERRED_KEYS = Metric(
    "prosody.partition.deferred.keys", _G, "{key}", (*_OF_PARTITION, EVENT),
    "Keys that have deferred messages or timers",
)  # fmt: skip
DEFERRED_AGE = Metric(
    "prosody.partition.deferred.oldest.age", _G, "s", _OF_PARTITION,
    "For how long the key known for longest has deferred work; no series while there is none",
    is_age=True,
)  # fmt: skip

# -- scheduling -----------------------------------------------------------------------------------

PERMITS_LIMIT = Metric(
    "prosody.permits.limit", _G, "{permit}", _OF_GROUP,
    "`max_concurrency`",
)  # fmt: skip
PERMITS_USED = Metric(
    "prosody.permits.used", _G, "{permit}", _OF_GROUP,
    "Permits held: handlers that run",
)  # fmt: skip
SCHEDULER_WAITING = Metric(
    "prosody.scheduler.waiting", _G, "{event}", _OF_GROUP,
    "Messages and timers that wait for a permit, first and later attempts",
)  # fmt: skip
CLASS_SHARE = Metric(
    "prosody.scheduler.class.share", _G, "1", (GROUP, WORK_CLASS),
    "Share of the recent handler time that a work class had, `normal` or `failure`",
)  # fmt: skip
REFUSALS = Metric(
    "prosody.monopolization.refusals", _C, "{refusal}", _OF_GROUP,
    "How often an event was held back because of what its key had used",
)  # fmt: skip
TIMEOUTS = Metric(
    "prosody.handler.timeouts", _C, "{attempt}", _OF_GROUP,
    "Handlers cancelled at their `timeout`",
)  # fmt: skip

# -- what became of messages ----------------------------------------------------------------------

RETRIES = Metric(
    "prosody.retries", _C, "{attempt}", _OF_GROUP,
    "Attempts in place after one that failed",
)  # fmt: skip
DEFERRED = Metric(
    "prosody.deferred", _C, "{event}", _OF_GROUP,
    "Messages and timers stored for later, those behind another one of their key included",
)  # fmt: skip
REDELIVERED = Metric(
    "prosody.redelivered", _C, "{attempt}", _OF_GROUP,
    "Attempts at what was deferred",
)  # fmt: skip
DEFERRAL_CLOSED = Metric(
    "prosody.deferral.closed", _G, "{consumer}", _OF_GROUP,
    "1 while so much fails that nothing is deferred, else 0",
)  # fmt: skip
DEDUP_HITS = Metric(
    "prosody.dedup.hits", _C, "{message}", _OF_GROUP,
    "Messages passed over because they were handled before",
)  # fmt: skip
DEAD_LETTERS = Metric(
    "prosody.dead_letters", _C, "{message}", _OF_GROUP,
    "Dead letters written to `failure_topic`",
)  # fmt: skip
UNDECODABLE = Metric(
    "prosody.undecodable", _C, "{message}", _OF_TOPIC,
    "Records that cannot be decoded",
)  # fmt: skip
SKIPPED = Metric(
    "prosody.skipped", _C, "{message}", _OF_TOPIC,
    "Records that the handler does not get: filtered, without a value, undecodable, or finished before",
)  # fmt: skip

# -- stores, telemetry, event loop ----------------------------------------------------------------

STORE_UP = Metric(
    "prosody.store.up", _G, "{store}", _OF_GROUP,
    "1 while the store answers, 0 while it counts as down; no series without a store",
)  # fmt: skip
STORE_ERRORS = Metric(
    "prosody.store.errors", _C, "{error}", (GROUP, STORE),
    "Operations of a store that failed: `timers`, `deferred` or `dedup`",
)  # fmt: skip
TELEMETRY_DROPPED = Metric(
    "prosody.telemetry.dropped", _C, "{event}", _OF_GROUP,
    "Telemetry events that were lost: too many waited, or they could not be written; no series while off",
)  # fmt: skip
LOOP_LAG = Metric(
    "prosody.loop.lag", _H, "s", _OF_GROUP,
    "How late the event loop was, looked at every half second",
)  # fmt: skip

TABLE: Final = (
    PROCESS_DURATION, OPERATION_DURATION, CONSUMED, SENT,
    READY, STALLED, ASSIGNED, REBALANCES, FAULTS,
    LAG, UNCOMMITTED, IN_FLIGHT, WAITING, QUEUED, OLDEST_AGE, TIMERS_PENDING, DEFERRED_KEYS, DEFERRED_AGE,
    PERMITS_LIMIT, PERMITS_USED, SCHEDULER_WAITING, CLASS_SHARE, REFUSALS, TIMEOUTS,
    RETRIES, DEFERRED, REDELIVERED, DEFERRAL_CLOSED, DEDUP_HITS, DEAD_LETTERS, UNDECODABLE, SKIPPED,
    STORE_UP, STORE_ERRORS, TELEMETRY_DROPPED, LOOP_LAG,
)  # fmt: skip
