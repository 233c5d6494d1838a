"""Text and times as they stand in the JSON of telemetry events."""

from __future__ import annotations

import json
from typing import Final

from prosody.model.times import utc_from_seconds

json_text: Final = json.JSONEncoder(ensure_ascii=False).encode
"""A text as JSON: quoted, escaped, everything beyond ASCII as it is."""


def second_text(seconds: int) -> str:
    """Whole seconds since 1970 UTC as in RFC 3339, without the zone: ``2026-03-01T12:00:05``."""
    return utc_from_seconds(seconds).strftime("%Y-%m-%dT%H:%M:%S")


_SECONDS_MAX: Final = 512


class Clock:
    """Milliseconds since 1970 UTC as text: RFC 3339, with three decimals.

    The texts of seconds are kept, because attempts that end together may have begun in many.
    """

    __slots__ = ("_seconds", "offset_s")

    def __init__(self) -> None:
        self.offset_s = 0.0
        """The wall clock's time when the monotonic one says 0."""
        self._seconds: dict[int, str] = {}

    def text(self, ms: int) -> str:
        """All but the quotes."""
        second, rest = divmod(ms, 1000)
        text = self._seconds.get(second)
        if text is None:
            text = second_text(second)
            if len(self._seconds) >= _SECONDS_MAX:
                self._seconds.clear()
            self._seconds[second] = text
        return f"{text}.{rest:03d}Z"
