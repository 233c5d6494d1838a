"""How long a deferred event waits for its next try."""

from __future__ import annotations

import math
from typing import Final

from prosody.model.times import LAST_SECOND

_DOUBLINGS_MAX: Final = 64
"""Any bound is long beyond ``defer_max_delay`` by then, and floats end at 2^1024."""


def delay_s(failures: int, base_s: float, max_s: float, random: float) -> float:
    """The wait after the ``failures``-th failure: equal jitter under a bound that doubles.

    ``bound = min(base * 2^(failures - 1), max)``, and the wait is uniform in ``(bound / 2, bound]``: the
    first is near ``defer_base``, none is longer than ``defer_max_delay``, and keys that failed together
    spread out. Equal jitter: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    Full jitter, as between the attempts in place, would let a key return at once after a day of failures.

    :param failures: 1 or more.
    :param base_s: ``defer_base`` in seconds; 0 waits for nothing but the next whole second.
    :param max_s: ``defer_max_delay`` in seconds.
    :param random: a number in [0, 1).
    """
    bound = min(base_s * 2.0 ** min(failures - 1, _DOUBLINGS_MAX), max_s)
    return bound * (1.0 - random / 2.0)


def timer_second(wall_s: float, wait_s: float) -> int:
    """The whole second at which a timer fires that waits ``wait_s`` from ``wall_s`` on.

    Rounded up: a timer is never early, not even on what it waits for. So a wait grows by less than 1 s.
    """
    return max(0, min(math.ceil(wall_s + wait_s), LAST_SECOND))
