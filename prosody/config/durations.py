"""Durations: ``timedelta``, seconds or text such as ``"1m 30s"``, all turned into seconds.

The text grammar is the one of the other Prosody languages (the Rust crate humantime 2.3), because
one set of ``PROSODY_*`` variables often serves programs of several languages. The libraries tried
have other grammars: pytimeparse2 1.7 reads ``"1M"`` as a minute, takes bare numbers, refuses spans
out of order and gives no reason; pydantic 2.14 reads ISO 8601 and clock times only; durationpy
0.11 writes a month ``mm``, of 30 days; humanfriendly 10 takes a single span. Hence this parser.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Final

MAX_DURATION_S: Final = 3_155_760_000.0
"""100 years; beyond, clocks and calendars below us overflow."""
MAX_TEXT_LENGTH: Final = 200
"""Longer text is refused unread; nobody writes a duration with so many spans."""

_NANOS_PER_SECOND: Final = 1_000_000_000
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86_400

_UNIT_NAMES: Final = {
    ("nanos", "nsec", "ns"): 1,
    ("usec", "us", "µs"): 1_000,
    ("millis", "msec", "ms"): 1_000_000,
    ("seconds", "second", "secs", "sec", "s"): _NANOS_PER_SECOND,
    ("minutes", "minute", "min", "mins", "m"): _MINUTE_S * _NANOS_PER_SECOND,
    ("hours", "hour", "hr", "hrs", "h"): _HOUR_S * _NANOS_PER_SECOND,
    ("days", "day", "d"): _DAY_S * _NANOS_PER_SECOND,
    ("weeks", "week", "wk", "wks", "w"): 7 * _DAY_S * _NANOS_PER_SECOND,
    # 30.44 and 365.25 days, as the other languages count them.
    ("months", "month", "M"): 2_630_016 * _NANOS_PER_SECOND,
    ("years", "year", "yrs", "yr", "y"): 31_557_600 * _NANOS_PER_SECOND,
}
UNITS: Final[dict[str, int]] = {
    name: nanos for names, nanos in _UNIT_NAMES.items() for name in names
}
"""Every unit, case-sensitive, and its length in nanoseconds."""

# Spaces may stand inside a number too ("1 000ms"), as in humantime.
_SPAN: Final = re.compile(r"\s*([0-9][0-9\s]*)(?:\.([0-9\s]*))?([A-Za-zµ]*)\s*")
_BARE_NUMBER: Final = re.compile(r"\s*[0-9]+(?:\.[0-9]+)?\s*")
_EXAMPLES: Final = '"15s", "500ms" or "1m 30s"'


def to_seconds(value: object) -> float:
    """Seconds meant by a ``timedelta``, a number of seconds or text as in :func:`parse_duration`.

    :raises TypeError: when ``value`` is none of these; a ``bool`` is not.
    :raises ValueError: with the reason, when it is negative, not finite, above
        :data:`MAX_DURATION_S`, or text that is no duration.
    """
    if isinstance(value, str):
        seconds = parse_duration(value)
    elif isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = value
    else:
        raise TypeError(f"{type(value).__name__} is the wrong type, a duration is meant")
    # An int is compared as it is: it may be larger than any float.
    if seconds != seconds or abs(seconds) == math.inf:  # noqa: PLR0124  # true for nan only
        raise ValueError("it is not a finite number")
    if seconds < 0:
        raise ValueError("it is negative")
    if seconds > MAX_DURATION_S:
        raise ValueError("it is too long")
    return float(seconds)


def parse_duration(text: str) -> float:
    """Seconds meant by ``text``.

    The text is one or more spans of number and unit, which are summed; ``"0"`` alone needs no unit.

    :raises ValueError: with the reason, when the text is no duration.
    """
    if text == "0":
        return 0.0
    if not text.strip():
        raise ValueError(f"it is empty; write for example {_EXAMPLES}")
    if len(text) > MAX_TEXT_LENGTH:
        raise ValueError(f"it is longer than {MAX_TEXT_LENGTH} characters")
    if _BARE_NUMBER.fullmatch(text):
        raise ValueError(
            f'a number alone has no unit; write "{text.strip()}s" if seconds are meant'
        )
    nanos = 0
    position = 0
    while position < len(text):
        span = _SPAN.match(text, position)
        if span is None:
            raise ValueError(f"a number was expected at {text[position:]!r}; write {_EXAMPLES}")
        nanos += _span_nanos(*span.groups())
        position = span.end()
    return nanos / _NANOS_PER_SECOND


def _span_nanos(whole: str, fraction: str | None, unit: str) -> int:
    length = UNITS.get(unit)
    if length is None:
        raise ValueError(_unit_problem(unit))
    nanos = int("".join(whole.split())) * length
    if fraction is None:
        return nanos
    digits = "".join(fraction.split())
    if not digits:
        raise ValueError("a digit was expected after the point")
    scale: int = 10 ** len(digits)
    part, rest = divmod(int(digits) * length, scale)
    # humantime keeps whole seconds for units from hours up; text one language takes, all take.
    coarse = length >= _HOUR_S * _NANOS_PER_SECOND and part % _NANOS_PER_SECOND
    if rest or coarse:
        raise ValueError(f"{whole}.{fraction}{unit} is finer than can be kept; use a smaller unit")
    return nanos + part


def _unit_problem(unit: str) -> str:
    if not unit:
        return f"a unit is missing after a number; write {_EXAMPLES}"
    known = "ns, us, ms, s, m, h, d, w, M (month), y"
    if unit.lower() in UNITS:
        return f"units are case-sensitive and {unit!r} is none; write {unit.lower()!r}"
    return f"{unit!r} is no unit; the units are {known} and their longer names"


def format_duration(seconds: float) -> str:
    """The shortest text for ``seconds``, to the nanosecond, as :func:`parse_duration` reads it."""
    nanos = round(seconds * _NANOS_PER_SECOND)
    if nanos == 0:
        return "0"
    for unit in ("d", "h", "m", "s", "ms", "us"):
        count, rest = divmod(nanos, UNITS[unit])
        # One day is "24h", as the specification writes it.
        if rest == 0 and not (unit == "d" and count == 1):
            return f"{count}{unit}"
    return f"{nanos}ns"
