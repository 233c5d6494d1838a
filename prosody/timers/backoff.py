"""How long to wait before a store is asked again."""

from __future__ import annotations

from typing import Final

from prosody.errors import StoreDownError
from prosody.model.backoff import backoff_s

FIRST_S: Final = 0.25
LONGEST_S: Final = 30.0
LONGEST_DOWN_S: Final = 2.0
"""A store that counts as down answers at once that it does, so asking costs nothing."""


def store_wait_s(failures: int, error: Exception, random: float) -> float:
    """The wait in seconds after the ``failures``-th failure in a row.

    :param random: a number in [0, 1).
    """
    longest = LONGEST_DOWN_S if isinstance(error, StoreDownError) else LONGEST_S
    return backoff_s(failures, FIRST_S, longest, random)
