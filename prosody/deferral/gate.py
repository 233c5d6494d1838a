"""Whether new deferrals are allowed: not while nearly everything fails.

When a service that all handlers need is down, deferring would only move the whole topic into the store.
So above a failure rate the gate is closed: failed messages are tried again in place, their partitions fill
up and stop taking in more.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from prosody._core import OutcomeWindow

if TYPE_CHECKING:
    from prosody.config.options_qos import DeferOptions
    from prosody.model.run import Run
    from prosody.observe.storm import Storms
    from prosody.runtime import Runtime

_log = logging.getLogger("prosody.deferral")

SAMPLE = 20
"""Outcomes below which there is no rate: a few failures in a quiet service close nothing."""

_RECOVERED = 2 / 3
"""Of the threshold: below this share the latest attempts say that something has changed. Just below the
threshold they would say so by chance: when 95 % fail, 17 or fewer of 20 do one time in thirteen, 11 or
fewer one time in five million."""


class Gate:
    """Counts first attempts of messages, and says whether what fails now may be deferred.

    Life cycle: open -> closed -> open, any number of times.

    Open, it closes when of the first attempts in ``defer_failure_window``, at least ``SAMPLE``, the share
    of ``defer_failure_threshold`` or more has failed. Closed, it opens again as soon as that is no longer
    so, or none of the runs it held back still fails, or the latest ``SAMPLE`` attempts of any kind since
    it closed have a rate clearly below the threshold (two thirds of it). The runs held back try again in
    place, at most ``max_retry_delay`` apart, so it opens within that time of the recovery. Then it counts
    from nothing: the failures of before would close it at once. Every call is O(1), amortised.
    """

    def __init__(self, options: DeferOptions, runtime: Runtime, storms: Storms) -> None:
        self._threshold = options.defer_failure_threshold
        self._window_s = options.defer_failure_window
        self._runtime = runtime
        self._storm = storms.of(_log)
        self.window = OutcomeWindow(self._window_s, SAMPLE)
        """First attempts of messages. Whoever counts them calls its ``record``, and ``attempted`` when
        the gate is closed: a call less for each message."""
        self.closed = False
        self._held: dict[Run, None] = {}
        """Runs held back whose last attempt failed, in the order in which they were."""
        self._has_held = False
        """Whether there was one since it closed."""
        self._latest: deque[bool] = deque(maxlen=SAMPLE)
        """Whether they failed: the latest attempts of any kind since it closed."""
        self._latest_failed = 0

    def allows(self) -> bool:
        """Whether an event that has just failed may be deferred; its own failure is counted already."""
        if self._threshold <= 0.0:
            return False  # as told: nothing is ever deferred
        now = self._runtime.monotonic()
        if self.closed:
            self._look(now)
        else:
            rate = self.window.failure_rate(now)
            if rate is not None and rate >= self._threshold:
                self._close(rate)
        return not self.closed

    def held(self, run: Run) -> None:
        """``run`` failed and was not allowed: it tries again in place."""
        if self.closed:
            self._held[run] = None
            self._has_held = True

    def attempted(self, run: Run, *, failed: bool, now: float) -> None:
        """An attempt of any kind has ended; told while the gate is closed."""
        if not failed:
            self._held.pop(run, None)
        if len(self._latest) == SAMPLE:
            self._latest_failed -= self._latest[0]
        self._latest.append(failed)
        self._latest_failed += failed
        self._look(now)

    def dropped(self, run: Run, now: float) -> None:
        """``run`` has ended for good, in a way that counts neither so nor so; told while it is closed."""
        self._held.pop(run, None)
        self._look(now)

    def _close(self, rate: float) -> None:
        self.closed = True
        self._has_held = False
        self._latest.clear()
        self._latest_failed = 0
        more = self._storm.allows(logging.WARNING)
        if more is not None:
            _log.warning(
                "deferral stops: %.1f %% of the first attempts in %.4g s failed, defer_failure_threshold "
                "is %.4g %%; what fails is now tried again in place, and its partitions fill up and "
                "take in no more%s",
                100 * rate,
                self._window_s,
                100 * self._threshold,
                more,
            )

    def _look(self, now: float) -> None:
        """Open, if there is a reason."""
        reason = self._reason_to_open(now)
        if reason is None:
            return
        self.closed = False
        self.window = OutcomeWindow(self._window_s, SAMPLE)
        self._held.clear()
        more = self._storm.allows(logging.INFO)
        if more is not None:
            _log.info("deferral goes on: %s%s", reason, more)

    def _reason_to_open(self, now: float) -> str | None:
        rate = self.window.failure_rate(now)
        if rate is None:
            return f"fewer than {SAMPLE} first attempts in {self._window_s:.4g} s"
        if rate < self._threshold:
            return f"only {100 * rate:.1f} % of the first attempts in {self._window_s:.4g} s failed"
        recovered = self._latest_failed < self._threshold * SAMPLE * _RECOVERED
        if recovered and len(self._latest) == SAMPLE:
            return f"only {self._latest_failed} of the last {SAMPLE} attempts failed"
        if self._has_held and not self._any_held():
            return "nothing of what was held back fails any more"
        return None

    def _any_held(self) -> bool:
        # A run whose partition was given up ends without another attempt: it is found here, at last.
        held = self._held
        while held:
            first = next(iter(held))
            if not first.finished:
                return True
            del held[first]
        return False
