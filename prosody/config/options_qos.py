"""The options for the quality of service: deferral, monopolization and fair scheduling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from prosody.config.kinds import Count, Duration, Flag, Number
from prosody.config.option import describe

DEFAULT_DEFER_ENABLED: Final = True
DEFAULT_DEFER_BASE_S: Final = 1.0
DEFAULT_DEFER_MAX_DELAY_S: Final = 86_400.0
DEFAULT_DEFER_FAILURE_THRESHOLD: Final = 0.9
DEFAULT_DEFER_FAILURE_WINDOW_S: Final = 300.0
DEFAULT_DEFER_CACHE_SIZE: Final = 1024
DEFAULT_DEFER_STORE_CACHE_SIZE: Final = 8192
DEFAULT_DEFER_SEEK_TIMEOUT_S: Final = 30.0
DEFAULT_DEFER_DISCARD_THRESHOLD: Final = 100

DEFAULT_MONOPOLIZATION_ENABLED: Final = True
DEFAULT_MONOPOLIZATION_THRESHOLD: Final = 0.9
MIN_WINDOW_S: Final = 1.0
"""Windows are kept in 64 buckets; shorter ones would measure the clock, not the handlers."""
DEFAULT_MONOPOLIZATION_WINDOW_S: Final = 300.0
DEFAULT_MONOPOLIZATION_CACHE_SIZE: Final = 8192

DEFAULT_SCHEDULER_FAILURE_WEIGHT: Final = 0.3
DEFAULT_SCHEDULER_MAX_WAIT_S: Final = 120.0
DEFAULT_SCHEDULER_WAIT_WEIGHT: Final = 200.0
DEFAULT_SCHEDULER_CACHE_SIZE: Final = 8192

_SHARE: Final = Number(least=0.0, most=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferOptions:
    """Failing messages are stored and tried again later (pipeline mode)."""

    defer_enabled: bool = field(
        default=DEFAULT_DEFER_ENABLED,
        metadata=describe(Flag(), "Enable deferral for new messages"),
    )
    defer_base: float = field(
        default=DEFAULT_DEFER_BASE_S,
        metadata=describe(Duration(), "Wait this long before first deferred retry"),
    )
    defer_max_delay: float = field(
        default=DEFAULT_DEFER_MAX_DELAY_S,
        metadata=describe(Duration(), "Never wait longer than this"),
    )
    defer_failure_threshold: float = field(
        default=DEFAULT_DEFER_FAILURE_THRESHOLD,
        metadata=describe(_SHARE, "Disable deferral when failure rate exceeds this"),
    )
    defer_failure_window: float = field(
        default=DEFAULT_DEFER_FAILURE_WINDOW_S,
        metadata=describe(
            Duration(least_s=MIN_WINDOW_S), "Measure failure rate over this time window"
        ),
    )
    defer_cache_size: int = field(
        default=DEFAULT_DEFER_CACHE_SIZE,
        metadata=describe(Count(least=1), "Track this many deferred keys in memory"),
    )
    defer_store_cache_size: int = field(
        default=DEFAULT_DEFER_STORE_CACHE_SIZE,
        metadata=describe(
            Count(least=1), "Maximum deferred store cache entries per Cassandra defer store"
        ),
    )
    defer_seek_timeout: float = field(
        default=DEFAULT_DEFER_SEEK_TIMEOUT_S,
        metadata=describe(Duration(positive=True), "Timeout when loading deferred messages"),
    )
    defer_discard_threshold: int = field(
        default=DEFAULT_DEFER_DISCARD_THRESHOLD,
        metadata=describe(Count(), "Read optimization (rarely needs changing)"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MonopolizationOptions:
    """Keys that use too much handler time are held back (pipeline mode)."""

    monopolization_enabled: bool = field(
        default=DEFAULT_MONOPOLIZATION_ENABLED,
        metadata=describe(Flag(), "Enable hot key protection"),
    )
    monopolization_threshold: float = field(
        default=DEFAULT_MONOPOLIZATION_THRESHOLD,
        metadata=describe(_SHARE, "Max handler time as fraction of window"),
    )
    monopolization_window: float = field(
        default=DEFAULT_MONOPOLIZATION_WINDOW_S,
        metadata=describe(Duration(least_s=MIN_WINDOW_S), "Measurement window"),
    )
    monopolization_cache_size: int = field(
        default=DEFAULT_MONOPOLIZATION_CACHE_SIZE,
        metadata=describe(Count(least=1), "Max distinct keys to track"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerOptions:
    """Which waiting message runs next (all modes)."""

    scheduler_failure_weight: float = field(
        default=DEFAULT_SCHEDULER_FAILURE_WEIGHT,
        metadata=describe(_SHARE, "Fraction of processing time reserved for retries"),
    )
    scheduler_max_wait: float = field(
        default=DEFAULT_SCHEDULER_MAX_WAIT_S,
        metadata=describe(
            Duration(positive=True), "Messages waiting this long get maximum priority"
        ),
    )
    scheduler_wait_weight: float = field(
        default=DEFAULT_SCHEDULER_WAIT_WEIGHT,
        metadata=describe(
            Number(), "Priority boost for waiting messages (higher = more aggressive)"
        ),
    )
    scheduler_cache_size: int = field(
        default=DEFAULT_SCHEDULER_CACHE_SIZE,
        metadata=describe(Count(least=1), "Max distinct keys to track"),
    )
