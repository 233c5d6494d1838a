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
"""Per partition. What queues behind the hot and the failing key is admitted and unfinished, so it counts
against this limit: about 1,000 orders, and no more than the 3,600 those two have on a slow machine. With
the default of 64 they would soon fill their partitions, and the other keys there would wait for them."""

RETRY_BASE_S = 0.02
MAX_RETRY_DELAY_S = 0.25
"""Short, so that the failing key is back soon after its dependency, and an outage shows many retries."""

STUCK_AFTER_S = 30.0
"""The run gives up when no order was handled for so long, outages apart; what is missing counts as lost."""

HOT_KEY = "customer-0001"
FAILING_KEY = "customer-0003"


@dataclass(frozen=True, slots=True)
class Settings:
    """One run."""

    orders: int = ORDERS
    keys: int = KEYS
    seed: int = SEED
    rate: float = RATE
    """Orders sent per second; 0 sends as fast as the broker takes them."""
    outage_s: float = OUTAGE_S
    """How long the failing key's dependency is down."""
    bootstrap_servers: str | None = None
    """A real Kafka; None for the embedded broker."""
    stuck_after_s: float = STUCK_AFTER_S

    @property
    def broker_name(self) -> str:
        """For people."""
        if self.bootstrap_servers is None:
            return "the embedded in-memory broker"
        return f"Apache Kafka at {self.bootstrap_servers}"
