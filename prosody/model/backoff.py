"""How long to wait before something that failed is tried again."""

from __future__ import annotations


def backoff_s(failures: int, base_s: float, max_s: float, random: float) -> float:
    """The wait after the ``failures``-th failure in a row: full jitter over a doubling bound.

    Uniform in ``[0, min(2 * base * 2^(failures - 1), max))``, so the first wait is ``base`` on
    average. Full jitter: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    :param failures: 1 or more.
    :param base_s: the first wait on average, in seconds; 0 never waits.
    :param max_s: no wait is longer, in seconds.
    :param random: a number in [0, 1).
    """
    # The exponent is capped because floats overflow; any bound is long beyond max_s by then.
    return min(base_s * 2.0 ** min(failures, 64), max_s) * random
