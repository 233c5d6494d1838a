"""The orders: who buys, in which sequence. Seeded, so that a run can be repeated."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any, NamedTuple

from demo.settings import HOT_KEY, Settings

WORK_MS_MIN = 2.0
WORK_MS_MAX = 5.0

HOT_FROM, HOT_UNTIL = 0.2, 0.5
"""The part of the run in which the hot key's orders come. Squeezed together they come nearly twice as
fast as they are handled one after the other, so they must queue."""


class Order(NamedTuple):
    """One order, to be sent."""

    key: str
    seq: int
    """1, 2, 3, ... for each key: the order in which they must be handled."""
    payload: dict[str, Any]


def make_orders(settings: Settings) -> list[Order]:
    """All orders in the sequence in which they are sent.

    Keys follow Zipf's law with exponent 1, as customers, products and devices often do: the second key
    has half as many orders as the first, the third a third.
    """
    rng = random.Random(settings.seed)
    ranks = range(1, settings.keys + 1)
    keys = [f"customer-{rank:04d}" for rank in ranks]
    weights = list(itertools.accumulate(1 / rank for rank in ranks))
    drawn = rng.choices(keys, cum_weights=weights, k=settings.orders)
    placed = sorted((_moment(key, rng), n, key) for n, key in enumerate(drawn))
    count: Counter[str] = Counter()
    orders = []
    for number, (_, _, key) in enumerate(placed, start=1):
        count[key] += 1
        payload = {
            "id": f"order-{settings.seed}-{number:06d}",
            "type": "order.placed",
            "seq": count[key],
            "work_ms": round(rng.uniform(WORK_MS_MIN, WORK_MS_MAX), 2),
        }
        orders.append(Order(key, count[key], payload))
    return orders


def _moment(key: str, rng: random.Random) -> float:
    """When in the run an order comes: 0 is the beginning, 1 the end."""
    moment = rng.random()
    return HOT_FROM + (HOT_UNTIL - HOT_FROM) * moment if key == HOT_KEY else moment
