"""Timer times: aware datetimes outside, whole seconds since 1970 inside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)
_HALF: Final = timedelta(milliseconds=500)

LAST_SECOND: Final = 2**32 - 1
"""Times are stored as unsigned 32-bit seconds: the last one is 2106-02-07 06:28:15 UTC."""


def seconds_from_utc(when: datetime) -> int:
    """Whole seconds since 1970 of an aware datetime, the nearest; half a second is rounded up."""
    return (when - _EPOCH + _HALF) // _SECOND


def utc_from_seconds(seconds: int) -> datetime:
    """The aware UTC datetime of whole seconds since 1970."""
    return _EPOCH + timedelta(seconds=seconds)
