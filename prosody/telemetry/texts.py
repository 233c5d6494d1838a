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


class Clock:
    """Milliseconds since 1970 UTC as text: RFC 3339, with three decimals. The last second's is kept."""

    __slots__ = ("_second", "_text", "offset_s")

    def __init__(self) -> None:
        self.offset_s = 0.0
        """The wall clock's time when the monotonic one says 0."""
        self._second: int | None = None
        self._text = ""

    def text(self, ms: int) -> str:
        """All but the quotes."""
        second, rest = divmod(ms, 1000)
        if second != self._second:
            self._second = second
            self._text = second_text(second)
        return f"{self._text}.{rest:03d}Z"
