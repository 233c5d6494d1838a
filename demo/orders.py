"""The orders: who buys, in which sequence. Seeded, so that a run can be repeated."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any, NamedTuple

from demo.settings import FAILING_KEYS, HOT_KEY, Settings

WORK_MS_MIN = 2.0
WORK_MS_MAX = 5.0

HOT_FROM, HOT_UNTIL = 0.2, 0.5
"""The part of the run in which the hot key's orders come. Squeezed together they come nearly twice as
fast as they are handled one after the other, so they must queue."""

SENT_TWICE = 0.02
"""The share of orders that the shop sends twice, as after a time-out whose message arrived all the same."""
SECOND_AFTER = 0.02
"""The longest way from an order to its copy, as a part of the run."""

REMINDERS: tuple[tuple[str, float], ...] = (
    ("set", 0.05),
    ("move", 0.01),
    ("cancel", 0.01),
    ("cancel_all", 0.005),
)
"""What orders want of the reminders of their customer, and how many do; one in 14 on the whole."""


class Order(NamedTuple):
    """One message, to be sent: an order, or its copy."""

    key: str
    seq: int
    """1, 2, 3, ... for each key: the order in which they must be handled."""
    payload: dict[str, Any]
    copy: bool = False
    """It was sent before, word for word; a handler must not see it."""


def make_orders(settings: Settings) -> list[Order]:
    """All orders in the sequence in which they are sent, copies included.

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
    orders: list[tuple[float, Order]] = []
    for number, (moment, _, key) in enumerate(placed, start=1):
        count[key] += 1
        payload = {
            "id": f"order-{settings.seed}-{number:06d}",
            "type": "order.placed",
            "seq": count[key],
            "work_ms": round(rng.uniform(WORK_MS_MIN, WORK_MS_MAX), 2),
            **_reminder(key, settings, rng),
        }
        orders.append((moment, Order(key, count[key], payload)))
        if rng.random() < SENT_TWICE:
            later = moment + rng.uniform(0.0, SECOND_AFTER)
            orders.append((later, Order(key, count[key], payload, copy=True)))
    # Stable: a copy that shares its order's moment stays behind it.
    orders.sort(key=lambda one: one[0])
    return [order for _, order in orders]


def _moment(key: str, rng: random.Random) -> float:
    """When in the run an order comes: 0 is the beginning, 1 the end."""
    moment = rng.random()
    return HOT_FROM + (HOT_UNTIL - HOT_FROM) * moment if key == HOT_KEY else moment


def _reminder(key: str, settings: Settings, rng: random.Random) -> dict[str, Any]:
    """What the order wants of its customer's reminders; mostly nothing.

    Customers with trouble have none: a timer waits for its turn in the queue of its key, and how late one
    is behind a thousand orders says nothing about timers.
    """
    wish = rng.random()
    after_s = round(rng.uniform(settings.reminder_s / 3, settings.reminder_s), 3)
    if key == HOT_KEY or key in FAILING_KEYS:
        return {}
    for what, share in REMINDERS:
        if wish < share:
            return {"reminder": what, "after_s": after_s}
        wish -= share
    return {}
