"""Both halves write the same lines, whatever the entries hold, or refuse them with the same words.

What stands in the lines is checked beside a JSON encoder in ``tests/telemetry/test_encoder.py``.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prosody.broker.protocol import TopicPartition
from prosody.telemetry import events as e
from prosody.telemetry.encoder import Encoder
from tests.core.halves import HALVES, core_function

OWN = "telemetry"
NOW_MS = 1_700_000_000_000.0


class Odd(int):
    """A number that is written in a way of its own."""

    def __format__(self, spec: str) -> str:
        return "odd"


class OddFloat(float):
    """No float to the eye: an entry that ends with it is none that ended well."""


any_texts = st.text(st.characters(codec=None), max_size=9)  # half surrogate pairs as well
keys = st.one_of(
    st.sampled_from(
        ["k-1", "k-2", "", '"', "\\\n\x00\x1f\x7f", "größ\U0001f600", "\ud800", "x" * 300]
    ),
    any_texts,
)
topics = st.one_of(st.sampled_from(["orders", OWN, 'o"', "\udfff"]), any_texts)
numbers = st.one_of(
    st.integers(0, 2**40),
    st.sampled_from([0, 9, 10, -1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**200, True, Odd(3)]),
)
borders = st.sampled_from(
    [0.0, 1.0, 59.999, 60.0, 0.001, 86_400.0, -1.0, -0.001, -1000.5, 1e9 + 0.999]
)
"""Seconds and milliseconds where another one begins."""
neighbours = borders.flatmap(
    lambda at: st.sampled_from([at, math.nextafter(at, math.inf), math.nextafter(at, -math.inf)])
)
times = st.one_of(
    st.floats(0, 5e8),
    neighbours,
    st.sampled_from([1e11, -1e11, 1e15, 1e300, -1e300, math.inf, -math.inf, math.nan]),
)
tps = st.builds(TopicPartition, topics, st.integers(-1, 3))
heads = st.sampled_from([*e.DEMANDS, "", ',"ü":1', ',"half":"\ud800"'])


def entry(*values: Any) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(*values)


pairs = entry(heads, st.one_of(times, st.just(3)), st.just(e.MESSAGE), tps, numbers, keys, times)
others = entry(
    st.sampled_from([e.MESSAGE_DISPATCHED, e.MESSAGE_FAILED, e.MESSAGE_SENT, e.TIMER_SCHEDULED]),
    st.one_of(times, st.just(3)),
    st.sampled_from([e.MESSAGE, e.SENT, "application"]),
    tps,
    st.one_of(st.integers(0, 2**32 - 1), numbers),
    keys,
    st.one_of(heads, any_texts, st.just(OddFloat(1.5))),
)
entries = st.lists(st.one_of(pairs, pairs, others), max_size=8)


def told(half: str, batches: list[list[Any]], offset_ms: float) -> list[Any]:
    """What one half says to each batch, by one encoder; a refusal by its type and text."""
    encoder = Encoder(OWN, "gröup", "s", "h\n")
    event_lines = core_function(half, "event_lines")
    found: list[Any] = []
    for values in batches:
        try:
            found.append(event_lines(encoder, values, offset_ms))
        except Exception as error:
            found.append((type(error), str(error)))
    found.append(encoder.places)
    return found


@given(entries, st.one_of(st.just(NOW_MS), st.just(0.0), st.floats(-1e12, 2e12)))
@example([("", math.nan, e.MESSAGE, TopicPartition("t", 0), 1, "k", 1.0)], 0.0)
@example([("", 1.0, e.MESSAGE, TopicPartition("t", 0), 1, "k", -0.5)], 0.0)
@example([("", -0.9995, e.MESSAGE, TopicPartition("t", 0), 1, "k", -1.0)], 0.0)
def test_both_halves_write_the_same(made: list[tuple[Any, ...]], offset_ms: float) -> None:
    values = [value for each in made for value in each]
    # Each alone too, or one that is refused would hide the others; and twice, from what is remembered.
    batches = [values, *map(list, made), values]
    compiled, pure = (told(half, batches, offset_ms) for half in HALVES)
    assert compiled == pure


@pytest.mark.parametrize("half", HALVES)
def test_a_pair_is_two_lines(half: str) -> None:
    tp = TopicPartition("orders", 2)
    values = ("", 0.0015, e.MESSAGE, tp, 7, "k", 61.0)
    (lines,) = (told(half, [list(values)], NOW_MS)[0],)
    assert lines[0] == [b"k", b"k"]
    first, second = map(json.loads, lines[1])
    assert first == second | {
        "type": "prosody.message.dispatched", "eventTime": "2023-11-14T22:13:20.001Z"
    }  # fmt: skip
    assert (second["type"], second["eventTime"]) == (
        "prosody.message.succeeded", "2023-11-14T22:14:21.000Z"
    )  # fmt: skip


@pytest.mark.parametrize("half", HALVES)
def test_any_sequence_of_sevens_is_taken_and_nothing_else(half: str) -> None:
    pair = (e.DEMANDS[0], 1.0, e.MESSAGE, TopicPartition("t", 0), 2, "k", 2.0)
    as_tuple, as_list, short = told(half, [pair, list(pair), list(pair[:6])], NOW_MS)[:3]  # type: ignore[list-item]
    assert as_tuple == as_list
    assert len(as_list[1]) == 2
    assert short == (ValueError, "event_lines: 6 values are not seven for each entry")


@pytest.mark.parametrize("half", HALVES)
def test_places_and_keys_that_are_forgotten_meanwhile_do_no_harm(half: str) -> None:
    """What is remembered is emptied when it is full, in the middle of a batch."""
    tp = TopicPartition("first", 0)
    made = [("", 1.0, e.MESSAGE, tp, 1, "first", 2.0)]
    made += [
        ("", 1.0, e.MESSAGE, TopicPartition(f"t{n}", 0), n, f"k{n}", 2.0) for n in range(17_000)
    ]
    made += [
        (e.MESSAGE_SENT, 1.0, e.SENT, TopicPartition(f"u{n}", 0), n, "k", "") for n in range(5_000)
    ]
    made += [("", 1.0, e.MESSAGE, tp, 1, "first", 2.0)]
    keys, lines = told(half, [[value for each in made for value in each]], NOW_MS)[0]
    assert (keys[:2], lines[:2]) == (keys[-2:], lines[-2:])
    assert [json.loads(line)["topic"] for line in lines[2:-2:500]] == [
        *(f"t{n}" for n in range(0, 17_000, 250)), *(f"u{n}" for n in range(0, 5_000, 500))
    ]  # fmt: skip
