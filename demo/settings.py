"""What one run of the demo is made of; times in seconds."""

from __future__ import annotations

from dataclasses import dataclass

ORDERS = 20_000
KEYS = 1_000
PARTITIONS = 4
RATE = 1_200.0
OUTAGE_S = 3.0
SEED = 1

ORDERS_MIN = 100
KEYS_MIN = 3

MAX_CONCURRENCY = 32
"""Enough for the rate: 1,200 orders a second of about 4 ms each keep 5 handlers busy."""

MAX_UNCOMMITTED = 4_000
"""Per partition. What queues behind the hot key is admitted and unfinished, so it counts against this
limit: about 1,000 orders, and no more than the 2,700 that it has on a slow machine. With the default of 64
they would soon fill their partition, and the other keys there would wait for them. What is deferred does
not count: it lies in the stores."""

DEFER_BASE_S = 1.0
DEFER_MAX_DELAY_S = 2.0
"""What failed comes back after about a second, then every other second: soon after its dependency."""

COMMIT_INTERVAL_S = 0.25
LOOK_EVERY_S = 0.25
"""What is committed is looked at so often: an order that is passed over while it fails must be seen."""

OUTAGE_SEEN_S = 2.0
"""Orders that are deferred for less may be through before a commit has passed them and a look has seen
it; only from here on the report insists on some."""

REMINDER_S = 3.0
"""A reminder is set for at most so long after its order. Timers have whole seconds."""

TIMER_LATE_MAX_S = 1.0
"""A timer that begins later than this after its second fails the demo, unless an order of the other
customers waited for longer: a machine that is too slow for the orders is too slow for timers as well, which
wait in the same queues."""

STUCK_AFTER_S = 30.0
"""The run gives up when no order was handled for so long, outages apart; what is missing counts as lost."""

HOT_KEY = "customer-0001"
FAILING_KEYS = frozenset(f"customer-{number:04d}" for number in range(3, 8))
"""Their goods lie in one warehouse, whose service fails. Customers are numbered by how much they buy."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One run."""

    orders: int = ORDERS
    keys: int = KEYS
    seed: int = SEED
    rate: float = RATE
    """Orders sent per second; 0 sends as fast as the broker takes them."""
    outage_s: float = OUTAGE_S
    """How long the failing keys' dependency is down."""
    reminder_s: float = REMINDER_S
    """The longest time after which an order wants a reminder."""
    bootstrap_servers: str | None = None
    """A real Kafka; None for the embedded broker."""
    cassandra: str | None = None
    """A real Cassandra; None for the embedded stores."""
    stuck_after_s: float = STUCK_AFTER_S

    @property
    def broker_name(self) -> str:
        """For people."""
        if self.bootstrap_servers is None:
            return "the embedded in-memory broker"
        return f"Apache Kafka at {self.bootstrap_servers}"

    @property
    def stores_name(self) -> str:
        """For people."""
        if self.cassandra is None:
            return "the embedded stores"
        return f"Apache Cassandra at {self.cassandra}"
