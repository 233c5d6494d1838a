"""The time of a virtual-time heap: how far from the landmark of its decay, and when that moves."""

from __future__ import annotations

from math import exp, inf, nan
from sys import float_info
from typing import Final

from prosody._core.constants import LN2, REBASE_HALF_LIVES

MAX_TIME: Final = float_info.max


class DecayClock:
    """What time it is, counted in half-lives from a landmark. It never goes back.

    A time from ``_latest`` to ``_young_until`` is finite, and the landmark is not too old for it, for
    sure: then nothing is to be done but to note it.
    """

    __slots__ = ("__weakref__", "_half_life", "_landmark", "_latest", "_young_until")

    _half_life: float
    _landmark: float
    _latest: float
    _young_until: float

    def _set_decay(self, half_life: float) -> None:
        self._half_life = half_life
        self._latest = -inf
        # Infinitely old, but where there is no decay: there none is needed, and from 0 no difference
        # of times overflows.
        self._landmark = -inf if half_life < inf else 0.0
        self._young_until = nan  # no time is below that

    def _advance(self, now: float) -> float:
        """``now``, or the latest one seen when that is later."""
        if now <= self._latest:
            return self._latest
        self._latest = now
        # The first time of all comes here as well, the landmark being infinitely old.
        if self._half_lives(now) > REBASE_HALF_LIVES:
            self._rebase(now)
        elif self._half_life == inf:
            self._young_until = MAX_TIME
        return now

    def _half_lives(self, now: float) -> float:
        """From the landmark to ``now``."""
        if self._half_life == inf:
            return 0.0
        return (now - self._landmark) / self._half_life

    def _decay(self, now: float) -> float:
        return exp(-LN2 * self._half_lives(now))

    def _set_landmark(self, now: float) -> None:
        self._landmark = now
        until = now + REBASE_HALF_LIVES * self._half_life
        # Float spacing may be more than all these half-lives; then each later time is looked at.
        self._young_until = now if self._half_lives(until) > REBASE_HALF_LIVES else until

    def _rebase(self, now: float) -> None:
        """Move the landmark to ``now``, and all that is measured from it."""
        raise NotImplementedError
