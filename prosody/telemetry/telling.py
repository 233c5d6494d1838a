"""What the log is told of telemetry: that it fails, that it works again, how much was lost."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from prosody.runtime import Runtime
    from prosody.telemetry.buffer import Buffer

_log = logging.getLogger("prosody.telemetry")

QUIET_S: Final = 60.0
"""At most so often it is told that events come faster than they can be written."""


class Telling:
    """One line when writing begins to fail and one when it works again, however long that takes."""

    def __init__(self, topic: str, buffer: Buffer, runtime: Runtime) -> None:
        self._topic = topic
        self._buffer = buffer
        self._monotonic = runtime.monotonic
        self._told = 0
        """How many of the events that were dropped it has told of."""
        self._told_at = float("-inf")
        self._failing = False

    def fails(self, error: BaseException) -> None:
        """Events cannot be written; told once."""
        if self._failing:
            return
        self._failing = True
        lost = self._untold()
        _log.warning(
            "telemetry events cannot be written to topic %r: %s%s. Nothing else is affected. It is tried "
            "again, and told when it works; meanwhile the newest events wait, and older ones are dropped. "
            "telemetry_enabled=False turns them off",
            self._topic,
            error,
            f"; {lost} were dropped" if lost else "",
        )

    def works(self) -> None:
        """Events were written."""
        if self._failing:
            self._failing = False
            _log.info(
                "telemetry events are written again; %d were dropped meanwhile", self._untold()
            )

    def dropped(self, reason: str) -> None:
        """Tell of events that were dropped, if there are any."""
        lost = self._untold()
        if lost:
            self._told_at = self._monotonic()
            _log.warning("%d telemetry events were dropped: %s", lost, reason)

    def look(self) -> None:
        """Called from time to time: were some dropped because there were too many?"""
        if not self._failing and self._monotonic() - self._told_at >= QUIET_S:
            self.dropped("they came faster than they could be written")

    def fault(self, fault: BaseException) -> None:
        """Something went wrong that is ours."""
        _log.critical("internal fault in telemetry; please report this", exc_info=fault)

    def _untold(self) -> int:
        lost = self._buffer.dropped - self._told
        self._told = self._buffer.dropped
        return lost
