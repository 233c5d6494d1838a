"""The JSON that is put together from parts is what a JSON encoder makes of the event's fields."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosody.broker.protocol import TopicPartition
from prosody.telemetry import events as e
from prosody.telemetry.encoder import Encoder
from prosody.telemetry.texts import Clock
from tests.telemetry.shapes import check_shape

OWN = "telemetry"
texts = st.text(st.characters(codec="utf-8"), max_size=12)
HEADS = {
    "message": (e.MESSAGE_DISPATCHED, e.MESSAGE_SUCCEEDED, e.MESSAGE_FAILED),
    "timer": (
        *(e.TIMER_DISPATCHED, e.TIMER_SUCCEEDED, e.TIMER_FAILED),
        *(e.TIMER_SCHEDULED, e.TIMER_CANCELLED),
    ),
    "sent": (e.MESSAGE_SENT,),
}


def field(text: str) -> str:
    """The type that a head writes."""
    return str(json.loads(text + '"}')["type"])


@st.composite
def entries(draw: st.DrawFn) -> tuple[tuple[Any, ...], list[tuple[float, dict[str, Any]]]]:
    """An entry, and of each event in it the time and the fields that it has, written down plainly."""
    group = draw(st.sampled_from([*sorted(HEADS), "pair", "pair"]))
    if group == "pair":
        return draw(pairs())
    head = draw(st.sampled_from(HEADS[group]))
    name = field(head)
    at = draw(st.floats(0, 5e8))
    tp = TopicPartition(draw(texts), draw(st.integers(0, 3)))
    number = draw(st.integers(0, 2**32 - 1))
    key = draw(texts)
    demand = draw(st.sampled_from(["normal", "failure"]))
    fields: dict[str, Any] = {"type": name, "eventTime": None}
    if group == "timer":
        kind = draw(st.sampled_from(list(e.TIMERS)))
        layout = e.TIMERS[kind]
        second = datetime.fromtimestamp(number, UTC)
        fields["scheduledTime"] = second.strftime("%Y-%m-%dT%H:%M:%SZ")
        fields["timerType"] = layout
    elif group == "message":
        layout = e.MESSAGE
        fields["offset"] = number
    else:
        layout = e.SENT
    fields |= {"topic": tp.topic, "partition": tp.partition}
    if group == "sent":
        fields["offset"] = number
    fields |= {"key": key, "source": "sender" if group == "sent" else "gröup", "hostname": "h\n"}
    more = ""
    if name.rpartition(".")[2] in {"dispatched", "succeeded", "failed"}:
        fields["demandType"] = demand
        more += e.DEMANDS[demand == "failure"]
    if name.endswith("failed"):
        error = ValueError(draw(texts))
        category = draw(st.sampled_from(["transient", "permanent"]))
        fields |= {"errorCategory": category, "exception": repr(error)}
        more += e.failure(category, error)
    if draw(st.booleans()):
        state = draw(texts)
        fields |= {"traceParent": "00-1", "traceState": state}
        more += e.traced({"traceparent": "00-1", "tracestate": state})
    return (head, at, layout, tp, number, key, more), [(at, fields)]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[tuple[Any, ...], list[tuple[float, dict[str, Any]]]]:
    """An attempt that ended well."""
    began, took_s = draw(st.floats(0, 5e8)), draw(st.floats(0, 5))
    tp = TopicPartition(draw(texts), draw(st.integers(0, 3)))
    number, key = draw(st.integers(0, 2**40)), draw(texts)
    demand = draw(st.sampled_from(["normal", "failure"]))
    head = e.DEMANDS[demand == "failure"]
    told = [
        (at, {
            "type": f"prosody.message.{name}", "eventTime": None, "offset": number,
            "topic": tp.topic, "partition": tp.partition, "key": key, "source": "gröup",
            "hostname": "h\n", "demandType": demand,
        })
        for name, at in (("dispatched", began), ("succeeded", began + took_s))
    ]  # fmt: skip
    return (head, began, e.MESSAGE, tp, number, key, began + took_s), told


@given(st.lists(entries(), max_size=8), st.floats(0, 2e9))
def test_events_are_what_a_json_encoder_makes_of_their_fields(
    made: list[tuple[tuple[Any, ...], list[tuple[float, dict[str, Any]]]]], wall: float
) -> None:
    encoder = Encoder(OWN, "gröup", "sender", "h\n")
    encoder.set_clock(0.0, wall)
    # Twice: the second time from what it remembers.
    for _ in range(2):
        keys, values = encoder.encode([value for event, _ in made for value in event])
        told = [each for _, of_entry in made for each in of_entry]
        for (at, fields), key, value in zip(told, keys, values, strict=True):
            time = datetime.fromtimestamp(int(at * 1000.0 + wall * 1000.0) / 1000, UTC)
            fields["eventTime"] = time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            assert value == json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
            assert key == fields["key"].encode()
            check_shape(json.loads(value))


def message(topic: str, partition: int, offset: int, key: str, more: str = "") -> tuple[Any, ...]:
    return e.MESSAGE_SUCCEEDED, 1.0, e.MESSAGE, TopicPartition(topic, partition), offset, key, more


def encode(*events: tuple[Any, ...]) -> list[dict[str, Any]]:
    encoder = Encoder(OWN, "g", "s", "h")
    _, values = encoder.encode([value for event in events for value in event])
    return [json.loads(value) for value in values]


def test_nothing_is_told_about_the_topic_itself() -> None:
    pair = (e.DEMANDS[0], 1.0, e.MESSAGE, TopicPartition(OWN, 0), 2, "k", 2.0)
    told = encode(message(OWN, 0, 1, "k"), message("t", 0, 1, "k"), message(OWN, 0, 1, "k"), pair)
    assert [event["topic"] for event in told] == ["t"]


def test_what_shares_key_and_offset_is_not_taken_for_the_same() -> None:
    """Short texts and small numbers are the same objects wherever they come from."""
    told = encode(message("t", 0, 1, "k"), message("t", 1, 1, "k"), message("u", 1, 1, "k"))
    assert [(event["topic"], event["partition"]) for event in told] == [
        ("t", 0), ("t", 1), ("u", 1)
    ]  # fmt: skip


def test_half_a_surrogate_pair_in_an_error_can_be_read() -> None:
    more = e.failure("transient", ValueError("\ud800"))
    (event,) = encode(message("t", 0, 1, "k", more))
    assert event["exception"] == r"ValueError('\ud800')"

    class OddError(Exception):
        def __repr__(self) -> str:
            return "odd \ud800"

    (event,) = encode(message("t", 0, 1, "k", e.failure("transient", OddError())))
    assert event["exception"] == "odd ?"


def test_an_error_that_cannot_be_written_and_one_too_long() -> None:
    class MuteError(Exception):
        def __repr__(self) -> str:
            raise RuntimeError

    (event,) = encode(message("t", 0, 1, "k", e.failure("permanent", MuteError())))
    assert event["exception"] == "MuteError(...)"
    long = e.failure("permanent", ValueError("x" * 10_000))
    (event,) = encode(message("t", 0, 1, "k", long))
    assert len(event["exception"]) == e.ERROR_CHARS_MAX + 3


def test_times_before_1970_and_many_seconds() -> None:
    clock = Clock()
    for _ in range(2):
        texts = [clock.text(ms) for ms in (-1, -1000, -1001, 0, *range(0, 2_000_000, 999))]
        assert texts[:5] == [
            "1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.000Z", "1969-12-31T23:59:58.999Z",
            "1970-01-01T00:00:00.000Z", "1970-01-01T00:00:00.000Z",
        ]  # fmt: skip
        assert texts[-1] == "1970-01-01T00:33:19.998Z"
        assert len(clock._seconds) <= 512


@pytest.mark.parametrize("count", [5000, 17_000])
def test_what_is_remembered_is_bounded(count: int) -> None:
    encoder = Encoder(OWN, "g", "s", "h")
    for n in range(count):
        encoder.encode(message(f"t{n}", 0, n, f"k{n}"))
    assert len(encoder.places) <= 4096
    assert len(encoder.keys) <= 16_384
