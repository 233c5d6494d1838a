"""What the stores need to know of the configuration, and numbers that are not configured."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

REQUEST_TIMEOUT_S: Final = 4.0
"""Limit of one request to Cassandra. Above its own limit for writes (2 s), so that it tells us first."""
STEP_TIMEOUT_S: Final = 10.0
"""Limit of one step of a call, repeated requests and the wait for a free place included."""
CONNECT_TIMEOUT_S: Final = 10.0
"""Limit of opening one connection, and of preparing one statement."""
SCHEMA_TIMEOUT_S: Final = 30.0
"""Limit of one statement about the schema, and of the nodes' agreement about it."""

TTL_MOST_S: Final = 630_720_000
"""The longest time-to-live Cassandra takes, 20 years."""
LAST_EXPIRY_S: Final = 2**31 - 1 - 86_400
"""Cassandra counts the seconds of an expiry in 31 bits (5.0 too, by default) and refuses what is later."""
FOR_EVER: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CassandraSettings:
    """How to reach Cassandra, and how long to keep things. All durations are seconds."""

    nodes: tuple[str, ...]
    """``host`` or ``host:port``."""
    keyspace: str = "prosody"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    datacenter: str | None = None
    rack: str | None = None
    retention_s: float = 365 * 86_400.0
    dedup_ttl_s: float = 7 * 86_400.0
    slab_size_s: float = 3600.0
    ssl_enabled: bool = False
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_check_hostname: bool = True
    schema_check_only: bool = False
    request_timeout_s: float = REQUEST_TIMEOUT_S
    step_timeout_s: float = STEP_TIMEOUT_S


def time_to_live(keep_s: float, wall_s: float) -> int:
    """The time-to-live to write with so that something is kept for ``keep_s`` seconds from now.

    What Cassandra cannot let expire that late is kept for ever: gone too early would be a loss.
    """
    whole = max(1, math.ceil(keep_s))
    if whole > TTL_MOST_S or wall_s + whole > LAST_EXPIRY_S:
        return FOR_EVER
    return whole


def expiry(ttl: int, wall_s: float) -> int:
    """The second at which something written now with a time-to-live is gone."""
    return 2**62 if ttl == FOR_EVER else int(wall_s) + ttl
