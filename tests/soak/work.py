"""The keys of the load, and what a handler does for each."""

from __future__ import annotations

from tests.processes.load import keys_of
from tests.processes.scene import PARTITIONS

QUICK, SLOW, FAILING, TIMED = "quick", "slow", "failing", "timed"
"""Families of keys: some milliseconds; a second; failing by chance; each message sets a timer."""

SLOW_S = 1.0
FAILS_OF_ALL = 0.35
"""How many of a failing key's runs fail."""
TIMER_S = (2, 13)
"""In how many seconds a timer is due."""


def _keys(family: str, of_each_partition: int) -> list[str]:
    return [
        key for p in range(PARTITIONS) for key in keys_of(p, PARTITIONS, of_each_partition, family)
    ]


SLOW_KEYS = _keys(SLOW, 1)
WAITING = {
    **dict.fromkeys(_keys(QUICK, 5), 3),
    **dict.fromkeys(SLOW_KEYS, 2),
    **dict.fromkeys(_keys(FAILING, 2), 2),
    **dict.fromkeys(_keys(TIMED, 2), 1),
}
"""How many messages of each key wait to be handled, all the time."""
