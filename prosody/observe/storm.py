"""Log lines that come once for each failure, kept readable when everything fails at once."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prosody.model.fields import fields

if TYPE_CHECKING:
    from prosody.model.fields import Fields
    from prosody.model.run import Run
    from prosody.runtime import Runtime

BURST = 20
"""So many lines in a row are written in any case."""

PER_S = 1.0
"""After a burst so many lines a second."""

QUIET_S = 5.0
"""When nothing was left out for so long, what was left out before is told."""


class Storm:
    """Decides which lines of one sort are written, and counts those that are left out.

    Nothing is left out of a logger that is enabled for ``DEBUG``.
    """

    def __init__(self, log: logging.Logger, runtime: Runtime) -> None:
        self._log = log
        self._monotonic = runtime.monotonic
        self._credit = float(BURST)
        self._credit_at = float("-inf")
        self._left_out = 0
        self._since = 0.0
        """When the first of those left out came."""
        self._last = 0.0
        """When the last of those left out came."""
        self._level = logging.WARNING
        self._about: dict[str, Any] = {}
        """What that one was about."""
        self.total = 0
        """All that were ever left out."""

    def allows(self, level: int, about: Run | Fields | None = None) -> str | None:
        """Whether a line may be written now: what is to stand at its end then, or None if not.

        :param about: what the line is about, for the one that tells of those that were left out.
        """
        if not self._log.isEnabledFor(level):
            return None
        now = self._monotonic()
        self._credit = min(BURST, self._credit + (now - self._credit_at) * PER_S)
        self._credit_at = now
        if self._credit < 1.0 and not self._log.isEnabledFor(logging.DEBUG):
            if not self._left_out:
                self._since = now
            self._left_out += 1
            self.total += 1
            self._last = now
            self._level = level
            if about is None or isinstance(about, Mapping):
                self._about = dict(about or {})
            else:
                self._about = fields(about)
            return None
        self._credit -= 1.0
        return self._more(now)

    def settle(self) -> None:
        """Tell what was left out, once nothing has been for a while."""
        now = self._monotonic()
        if self._left_out and now - self._last >= QUIET_S:
            level, ago_s = self._level, now - self._last
            about = {**self._about, "left_out": self._left_out}
            self._log.log(
                level,
                "until %.0f s ago it was the same line again%s",
                ago_s,
                self._more(now),
                extra=about,
            )

    def _more(self, now: float) -> str:
        left_out, self._left_out = self._left_out, 0
        if not left_out:
            return ""
        return f" ({left_out} more like this in the last {now - self._since:.0f} s)"


class Storms:
    """The storms of one subscription."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        # Weak, because some belong to a partition, and end with it.
        self._storms: weakref.WeakSet[Storm] = weakref.WeakSet()
        self._common: dict[logging.Logger, Storm] = {}

    def of(self, log: logging.Logger) -> Storm:
        """A storm for one more sort of lines of ``log``."""
        storm = Storm(log, self._runtime)
        self._storms.add(storm)
        return storm

    def common(self, log: logging.Logger) -> Storm:
        """The one for lines of ``log`` that all partitions have in common: they come and go, and have the
        same to say in an outage."""
        storm = self._common.get(log)
        if storm is None:
            storm = self._common[log] = self.of(log)
        return storm

    def settle(self) -> None:
        """Called from time to time."""
        for storm in tuple(self._storms):
            storm.settle()
