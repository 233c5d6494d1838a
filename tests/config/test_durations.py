"""Durations: the grammar of humantime, against its own examples and a naive model."""

from __future__ import annotations

import contextlib
import math
import re
from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prosody.config.durations import (
    MAX_DURATION_S,
    UNITS,
    format_duration,
    parse_duration,
    to_seconds,
)

# From humantime's tests and documentation, 2.3.
ACCEPTED = [
    ("17nsec", 17e-9), ("17nanos", 17e-9), ("33ns", 33e-9), ("3usec", 3e-6), ("78us", 78e-6),
    ("163µs", 163e-6), ("31msec", 0.031), ("31millis", 0.031), ("6ms", 0.006), ("3000s", 3000),
    ("300sec", 300), ("300secs", 300), ("50seconds", 50), ("1second", 1), ("100m", 6000),
    ("12min", 720), ("12mins", 720), ("1minute", 60), ("7minutes", 420), ("2h", 7200),
    ("7hr", 25_200), ("7hrs", 25_200), ("1hour", 3600), ("24hours", 86_400), ("1day", 86_400),
    ("2days", 172_800), ("365d", 31_536_000), ("1week", 604_800), ("7weeks", 4_233_600),
    ("100wk", 60_480_000), ("2wks", 1_209_600), ("52w", 31_449_600), ("1month", 2_630_016),
    ("3months", 7_890_048), ("12M", 31_560_192), ("1year", 31_557_600), ("17y", 536_479_200),
    ("2yr", 63_115_200), ("2yrs", 63_115_200), ("3years", 94_672_800),
    ("2h 37min", 9420), ("4.2s", 4.2), ("1.5h", 5400), ("0.5d", 43_200), ("0.5y", 15_778_800),
    ("1.000000002s", 1.000000002), ("3.001us", 3.001e-6), ("0.0s", 0), ("300.0sec", 300),
    ("0", 0), ("0s", 0), ("20 min 17 nsec", 1200.000000017), ("1m 30s", 90), ("30s 1m", 90),
    ("1m30s", 90), ("1s1s", 2), (" 15 s ", 15), ("1 0s", 10), ("1. 5s", 1.5), ("\t1\nm", 60),
]  # fmt: skip

REFUSED = [
    ("", "empty"), ("  ", "empty"), ("15", '"15s"'), ("1.5", '"1.5s"'), (" 20 ", '"20s"'),
    ("00", '"00s"'), ("-15s", "number was expected"), ("+15s", "number was expected"),
    ("s", "number was expected"), ("1m s", "number was expected"), ("1m,30s", "number was expected"),
    (".5s", "number was expected"), ("1.s", "digit was expected"), ("1. s", "digit was expected"),
    ("1m 30", "unit is missing"), ("1.5.5s", "unit is missing"), ("1_000s", "unit is missing"),
    ("15S", "case-sensitive"), ("5Min", "'min'"), ("5MS", "'ms'"),
    ("1fortnight", "'fortnight' is no unit"), ("1mo", "no unit"), ("1m sec", "number was expected"),
    ("1e3s", "no unit"), ("infs", "number was expected"), ("nan", "number was expected"),
    ("0.5ns", "finer"), ("1.0000000001s", "finer"), ("0.0001h", "finer"), ("0.5M 0.1y 0.3ns", "finer"),
    ("\u0661\u0665s", "number was expected"), ("1" * 300 + "s", "longer than"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "seconds"), ACCEPTED, ids=repr)
def test_accepted(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-15, abs=0)


@pytest.mark.parametrize(("text", "reason"), REFUSED, ids=repr)
def test_refused_with_the_reason(text, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse_duration(text)


SPANS = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " "])),
    min_size=1,
    max_size=8,
)


@given(SPANS, st.sampled_from(["", " ", "\t "]))
def test_sum_of_spans_is_the_models(spans, between):
    text = between.join(f"{number}{gap}{unit}" for number, unit, gap in spans)
    assume(text != "0")
    nanos = sum(number * UNITS[unit] for number, unit, _ in spans)
    assert parse_duration(text) == float(Fraction(nanos, 10**9))


@given(st.integers(0, 10**6), st.text("0123456789", min_size=1, max_size=9))
def test_fraction_of_seconds_is_exact(whole, digits):
    assert parse_duration(f"{whole}.{digits}s") == float(Fraction(f"{whole}.{digits}"))


@given(st.integers(0, 10**18))
def test_formatted_is_read_back(nanos):
    seconds = float(Fraction(nanos, 10**9))
    # A float of many seconds has no nanoseconds left, so compare what was formatted.
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-15, abs=0)


@given(st.text())
def test_any_text_is_a_number_of_seconds_or_refused(text):
    with contextlib.suppress(ValueError):  # either outcome is right
        assert parse_duration(text) >= 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.02, "20ms"), (0.1, "100ms"), (1, "1s"), (30, "30s"), (90, "90s"), (300, "5m"),
        (3600, "1h"), (86_400, "24h"), (604_800, "7d"), (1.5, "1500ms"), (0, "0"), (5e-9, "5ns"),
        (90_000, "25h"), (1e-6, "1us"),
    ],
)  # fmt: skip
def test_format(seconds, text):
    assert format_duration(seconds) == text


@given(st.timedeltas() | st.floats() | st.integers())
def test_numbers_and_timedeltas_against_a_naive_model(value):
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if 0 <= seconds <= MAX_DURATION_S:  # false for nan
        used = to_seconds(value)
        assert (used, type(used)) == (float(seconds), float)
    else:
        with pytest.raises(ValueError, match=r"^it is "):
            to_seconds(value)


@pytest.mark.parametrize("value", [True, None, b"1s", [1], 1j, object()])
def test_wrong_types(value):
    with pytest.raises(TypeError, match=type(value).__name__):
        to_seconds(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, -1e-9, 10**400, "-1s"])
def test_wrong_values(value):
    with pytest.raises(ValueError, match=r"."):
        to_seconds(value)
