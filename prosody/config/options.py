"""The options of the client, one frozen dataclass per table of the README.

A field's name is the option's name, its default the option's default and its metadata the rest, so
an option is written down once. All durations are seconds. Deferral, monopolization and scheduling
stand in ``options_qos.py``, what this library adds in ``options_own.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from prosody.config.kinds import Choice, Count, Duration, Flag, Text
from prosody.config.list_kinds import MAX_PORT, ServerList, TextList, TopicList
from prosody.config.option import describe

MODES: Final = ("pipeline", "low-latency", "best-effort")
SPAN_RELATIONS: Final = ("child", "follows_from")

DEFAULT_MODE: Final = "pipeline"
DEFAULT_MOCK: Final = False

DEFAULT_MAX_CONCURRENCY: Final = 32
DEFAULT_MAX_UNCOMMITTED: Final = 64
TIMEOUT_SHARE: Final = 0.8
"""``timeout`` is this share of ``stall_threshold`` unless it is set."""
DEFAULT_COMMIT_INTERVAL_S: Final = 1.0
DEFAULT_POLL_INTERVAL_S: Final = 0.1
DEFAULT_SHUTDOWN_TIMEOUT_S: Final = 30.0
MAX_KAFKA_DURATION_S: Final = 23 * 86_400.0
"""The protocol has 32-bit milliseconds, 24.8 days; the difference is room for margins."""
DEFAULT_STALL_THRESHOLD_S: Final = 300.0
DEFAULT_PROBE_PORT: Final = 8000
DEFAULT_IDEMPOTENCE_CACHE_SIZE: Final = 8192
DEFAULT_IDEMPOTENCE_VERSION: Final = "1"
DEFAULT_IDEMPOTENCE_TTL_S: Final = 604_800.0
MIN_IDEMPOTENCE_TTL_S: Final = 60.0
MAX_CASSANDRA_TTL_S: Final = 630_720_000.0
"""20 years: the longest time-to-live Cassandra takes."""
DEFAULT_SLAB_SIZE_S: Final = 3600.0
MIN_SLAB_SIZE_S: Final = 1.0
MAX_SLAB_SIZE_S: Final = MAX_CASSANDRA_TTL_S
DEFAULT_MESSAGE_SPANS: Final = "child"
DEFAULT_TIMER_SPANS: Final = "follows_from"

DEFAULT_SEND_TIMEOUT_S: Final = 1.0

DEFAULT_MAX_RETRIES: Final = 3
DEFAULT_RETRY_BASE_S: Final = 0.02
DEFAULT_MAX_RETRY_DELAY_S: Final = 300.0

DEFAULT_TELEMETRY_ENABLED: Final = True
DEFAULT_TELEMETRY_TOPIC: Final = "prosody.telemetry-events"

DEFAULT_CASSANDRA_KEYSPACE: Final = "prosody"
KEYSPACE_PATTERN: Final = "[A-Za-z0-9_]{1,48}"
DEFAULT_CASSANDRA_RETENTION_S: Final = 365 * 86_400.0
MIN_CASSANDRA_RETENTION_S: Final = 1.0
"""To Cassandra a time-to-live of 0 means "keep for ever", the opposite of what is meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreOptions:
    """Which brokers, which group, which topics."""

    bootstrap_servers: tuple[str, ...] = field(
        default=(),
        metadata=describe(ServerList(), "Kafka servers to connect to"),
    )
    group_id: str | None = field(default=None, metadata=describe(Text(), "Consumer group name"))
    subscribed_topics: tuple[str, ...] = field(
        default=(),
        metadata=describe(TopicList(), "Topics to read from"),
    )
    allowed_events: tuple[str, ...] | None = field(
        default=None,
        metadata=describe(
            TextList(), "Only process events whose type begins with one of these", shown="(all)"
        ),
    )
    # No default: it is the group id where nothing else is said.
    source_system: str = field(
        metadata=describe(
            Text(), "Tag for outgoing messages (prevents reprocessing)", shown="<group_id>"
        ),
    )
    mock: bool = field(
        default=DEFAULT_MOCK, metadata=describe(Flag(), "Use in-memory Kafka for testing")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerOptions:
    """How messages are taken in, run and committed."""

    max_concurrency: int = field(
        default=DEFAULT_MAX_CONCURRENCY,
        metadata=describe(Count(least=1), "Max messages being processed simultaneously"),
    )
    max_uncommitted: int = field(
        default=DEFAULT_MAX_UNCOMMITTED,
        metadata=describe(
            Count(least=1), "Max unfinished messages of a partition before it is paused"
        ),
    )
    # No default: it follows from stall_threshold.
    timeout: float = field(
        metadata=describe(
            Duration(positive=True),
            "Cancel handler if it runs longer than this",
            shown="80% of stall threshold",
        ),
    )
    commit_interval: float = field(
        default=DEFAULT_COMMIT_INTERVAL_S,
        metadata=describe(Duration(), "How often to save progress to Kafka"),
    )
    poll_interval: float = field(
        default=DEFAULT_POLL_INTERVAL_S,
        metadata=describe(Duration(positive=True), "How often to fetch new messages from Kafka"),
    )
    shutdown_timeout: float = field(
        default=DEFAULT_SHUTDOWN_TIMEOUT_S,
        metadata=describe(
            Duration(most_s=MAX_KAFKA_DURATION_S),
            "Wait this long for in-flight work before force-quit",
        ),
    )
    stall_threshold: float = field(
        default=DEFAULT_STALL_THRESHOLD_S,
        metadata=describe(Duration(positive=True), "Report unhealthy if no progress for this long"),
    )
    probe_port: int | None = field(
        default=DEFAULT_PROBE_PORT,
        metadata=describe(
            Count(most=MAX_PORT),
            "HTTP port for health checks (`None`, or `none` in the variable, to disable)",
            none_disables=True,
        ),
    )
    failure_topic: str | None = field(
        default=None,
        metadata=describe(Text(), "Send unprocessable messages here (dead letter queue)"),
    )
    idempotence_cache_size: int = field(
        default=DEFAULT_IDEMPOTENCE_CACHE_SIZE,
        metadata=describe(
            Count(),
            "How many message ids to remember across all partitions; 0 disables deduplication, "
            "the persistent store included",
        ),
    )
    idempotence_version: str = field(
        default=DEFAULT_IDEMPOTENCE_VERSION,
        metadata=describe(
            Text(allows_empty=True),
            "Changing it forgets every id remembered so far",
            shown=f'"{DEFAULT_IDEMPOTENCE_VERSION}"',
        ),
    )
    idempotence_ttl: float = field(
        default=DEFAULT_IDEMPOTENCE_TTL_S,
        metadata=describe(
            Duration(least_s=MIN_IDEMPOTENCE_TTL_S, most_s=MAX_CASSANDRA_TTL_S),
            "How long Cassandra keeps deduplication records",
        ),
    )
    slab_size: float = field(
        default=DEFAULT_SLAB_SIZE_S,
        metadata=describe(
            Duration(least_s=MIN_SLAB_SIZE_S, most_s=MAX_SLAB_SIZE_S),
            "Timer storage granularity (rarely needs changing)",
        ),
    )
    message_spans: str = field(
        default=DEFAULT_MESSAGE_SPANS,
        metadata=describe(Choice(SPAN_RELATIONS), "Span linking for message execution"),
    )
    timer_spans: str = field(
        default=DEFAULT_TIMER_SPANS,
        metadata=describe(Choice(SPAN_RELATIONS), "Span linking for timer execution"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerOptions:
    """How messages are sent."""

    send_timeout: float | None = field(
        default=DEFAULT_SEND_TIMEOUT_S,
        metadata=describe(
            Duration(positive=True),
            "Give up sending after this long (`None`, or `none` in the variable, to never)",
            none_disables=True,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions:
    """How a failed handler is tried again."""

    max_retries: int = field(
        default=DEFAULT_MAX_RETRIES,
        metadata=describe(Count(), "Give up after this many attempts (low-latency mode)"),
    )
    retry_base: float = field(
        default=DEFAULT_RETRY_BASE_S,
        metadata=describe(Duration(), "Wait this long before first retry"),
    )
    max_retry_delay: float = field(
        default=DEFAULT_MAX_RETRY_DELAY_S,
        metadata=describe(
            Duration(), "Never wait longer than this", variable="PROSODY_RETRY_MAX_DELAY"
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryOptions:
    """Life-cycle events of messages and timers, produced to a topic."""

    telemetry_enabled: bool = field(
        default=DEFAULT_TELEMETRY_ENABLED,
        metadata=describe(Flag(), "Produce lifecycle events to Kafka"),
    )
    telemetry_topic: str = field(
        default=DEFAULT_TELEMETRY_TOPIC,
        metadata=describe(Text(), "Kafka topic for telemetry events"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CassandraOptions:
    """Where timers, deferred messages and deduplication records are kept."""

    cassandra_nodes: tuple[str, ...] = field(
        default=(),
        metadata=describe(ServerList(), "Servers to connect to (host:port)"),
    )
    cassandra_keyspace: str = field(
        default=DEFAULT_CASSANDRA_KEYSPACE,
        metadata=describe(
            Text(
                pattern=KEYSPACE_PATTERN,
                wanted="a name of 1 to 48 ASCII letters, digits and underscores",
            ),
            "Keyspace name",
        ),
    )
    cassandra_user: str | None = field(default=None, metadata=describe(Text(), "Username"))
    cassandra_password: str | None = field(
        default=None, repr=False, metadata=describe(Text(), "Password", secret=True)
    )
    cassandra_datacenter: str | None = field(
        default=None, metadata=describe(Text(), "Prefer this datacenter for queries")
    )
    cassandra_rack: str | None = field(
        default=None, metadata=describe(Text(), "Prefer this rack for queries")
    )
    cassandra_retention: float = field(
        default=DEFAULT_CASSANDRA_RETENTION_S,
        metadata=describe(
            Duration(least_s=MIN_CASSANDRA_RETENTION_S, most_s=MAX_CASSANDRA_TTL_S),
            "Delete data older than this",
            shown="1y",  # as the specification writes it; of 365 days, not of 365.25
        ),
    )
