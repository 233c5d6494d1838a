"""Trace context and baggage to headers and back, compared with the propagators of OpenTelemetry itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from prosody.model.trace import ATTEMPTED, carried, is_attempt_of
from prosody.observe.propagation import extract, inject, within

TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
SPAN_ID = 0x00F067AA0BA902B7
PARENT = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"


def a_context(flags: int = 1, state: dict[str, str] | None = None) -> Context:
    span = SpanContext(
        TRACE_ID, SPAN_ID, False, TraceFlags(flags), TraceState(list((state or {}).items()))
    )
    return trace.set_span_in_context(NonRecordingSpan(span), Context())


@pytest.mark.parametrize(
    ("flags", "written"), [(0, "00"), (1, "01"), (2, "00"), (3, "01"), (255, "01")]
)
def test_only_the_flag_sampled_is_written(flags: int, written: str) -> None:
    assert inject(a_context(flags)) == {"traceparent": f"{PARENT[:-2]}{written}"}


def test_nothing_is_written_without_a_trace() -> None:
    assert inject(Context()) == {}
    assert inject(trace.set_span_in_context(trace.INVALID_SPAN, Context())) == {}
    assert inject(Context({"other": 1})) == {}


def test_state_and_baggage_are_written_in_the_order_of_other_clients() -> None:
    context = baggage.set_baggage("tenant", "a b", a_context(state={"vendor": "x"}))
    assert list(inject(context).items()) == [
        ("baggage", "tenant=a+b"), ("traceparent", PARENT), ("tracestate", "vendor=x"),
    ]  # fmt: skip
    assert inject(baggage.set_baggage("tenant", "1", Context())) == {"baggage": "tenant=1"}


@pytest.mark.parametrize(
    "parent",
    [
        PARENT,
        PARENT[:-2] + "03",
        f" {PARENT}",
        f"{PARENT}\n",
        f"{PARENT}-more",
        f"cc{PARENT[2:]}-more",
        f"ff{PARENT[2:]}",
        f"00-{'0' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'0' * 16}-01",
        PARENT.upper(),
        PARENT.replace("a", "_", 1),
        "",
        "nonsense",
        "00-\N{ARABIC-INDIC DIGIT ONE}",
        "0" * 1000,
    ],
)
@pytest.mark.parametrize("state", [None, "", "a=1,b=2", "===", "\x00"])
def test_what_is_read_is_what_the_api_reads(parent: str, state: str | None) -> None:
    carrier = {"traceparent": parent} | ({} if state is None else {"tracestate": state})
    expected = trace.get_current_span(
        TraceContextTextMapPropagator().extract(carrier, Context())
    ).get_span_context()
    span, base = extract(carrier, Context())
    assert base == {}
    assert span == (expected if expected.is_valid else None)
    if span is not None:
        assert span.is_remote
        assert span.trace_state == expected.trace_state


texts = st.text(st.characters(codec="utf-8"), max_size=20)


@given(parent=texts, state=texts, bag=texts)
def test_no_header_is_too_strange(parent: str, state: str, bag: str) -> None:
    headers = [("traceparent", parent), ("tracestate", state), ("baggage", bag)]
    found = carried([(name, text.encode()) for name, text in headers])
    span, base = extract(found, Context())
    inject(base if span is None else within(span, base))


def test_baggage_is_added_to_what_is_there() -> None:
    base = baggage.set_baggage("service", "x", Context())
    span, found = extract({"baggage": "tenant=a%20b"}, base)
    assert (span, dict(baggage.get_all(found))) == (None, {"service": "x", "tenant": "a b"})
    assert dict(baggage.get_all(base)) == {"service": "x"}
    again: dict[str, str] = {}
    W3CBaggagePropagator().inject(again, found)
    assert inject(found) == again


def test_the_first_header_of_a_name_counts() -> None:
    headers = [
        ("source-system", b"s"), ("traceparent", None), ("traceparent", b"1"), ("traceparent", b"2"),
        ("baggage", b"\xff"),
    ]  # fmt: skip
    assert carried(headers) == {"traceparent": "1", "baggage": "\N{REPLACEMENT CHARACTER}"}


def test_a_stored_trace_knows_whose_attempt_it_is() -> None:
    stored = {"traceparent": PARENT, ATTEMPTED: "7"}
    assert is_attempt_of(stored, 7)
    assert not is_attempt_of(stored, 8)
    assert not is_attempt_of({"traceparent": PARENT}, 7)
    assert not is_attempt_of(None, 7)
    span, base = extract(stored, Context())
    assert span is not None
    assert inject(within(span, base)) == {"traceparent": PARENT}, "the note is never sent"
