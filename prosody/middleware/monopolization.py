"""Holds back keys that take too much of the handlers' time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from prosody._core import TimeWindow
from prosody.errors import MonopolizationError
from prosody.model.fields import fields
from prosody.model.outcome import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from prosody.config.options_qos import MonopolizationOptions
    from prosody.middleware.base import Call
    from prosody.model.outcome import Outcome
    from prosody.model.run import Run
    from prosody.observe.storm import Storms
    from prosody.runtime import Runtime

_log = logging.getLogger("prosody.monopolization")

_LEAST_S = 0.001
"""A refused event waits at least so long: timers fire a hair early, and would find no room yet."""


class Monopolization:
    """Refuses a key while it has used more than a share of a rolling window.

    A key counts with its partition, and with all that its handlers used: messages and timers, first
    attempts and retries, failures, the run in progress up to now. Waiting counts nothing. The scheduler
    tells ``meter`` when a handler begins and ends, so a run is counted before the key comes again.

    A refusal is no attempt: the handler does not run, and nothing counts it as a failure. It names the
    time from which the key has room again, so a key is never held back for good.
    """

    def __init__(self, options: MonopolizationOptions, runtime: Runtime, storms: Storms) -> None:
        self.meter = TimeWindow(options.monopolization_window, options.monopolization_cache_size)
        self._share = options.monopolization_threshold
        self._window_s = options.monopolization_window
        self.limit_s = options.monopolization_threshold * options.monopolization_window
        self._monotonic = runtime.monotonic
        self._storm = storms.of(_log)
        self.refusals = 0
        """How often a key was refused."""

    def wrap(self, inner: Call) -> Call:
        used = self.meter.used
        monotonic = self._monotonic
        limit_s = self.limit_s

        # No coroutine of its own: it looks before the call and has no interest in how that ends.
        def unless_greedy(run: Run) -> Awaitable[Outcome]:
            now = monotonic()
            used_s = used(run.place, now)
            if used_s > limit_s:
                return self._refuse(run, used_s, now)
            return inner(run)

        return unless_greedy

    def held_until(self, place: tuple[int, str], now: float) -> float | None:
        """When a key that would be refused now has room again; None when it has room."""
        if self.meter.used(place, now) <= self.limit_s:
            return None
        return self.meter.room_at(place, self.limit_s, now)

    async def _refuse(self, run: Run, used_s: float, now: float) -> Refusal:
        self.refusals += 1
        room_at = self.meter.room_at(run.place, self.limit_s, now)
        until = max(room_at, now + _LEAST_S)
        error = MonopolizationError(
            f"its key used {used_s / self._window_s:.1%} of the last {self._window_s:.4g} s in handlers, "
            f"more than monopolization_threshold = {self._share:.4g} allows: {run.where()}"
        )
        more = self._storm.allows(logging.WARNING, run)
        if more is not None:
            _log.warning(
                "key held back for %.3g s: %s%s", until - now, error, more, extra=fields(run)
            )
        return Refusal(error, until)
