"""W3C trace context and baggage: between headers and the contexts of OpenTelemetry."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context

_baggage = W3CBaggagePropagator()
_trace_context = TraceContextTextMapPropagator()

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})").fullmatch


def inject(context: Context) -> dict[str, str]:
    """``baggage``, ``traceparent`` and ``tracestate`` of a context; empty when it has none of them.

    Of the trace flags only "sampled" is written. SDKs set a bit that says how random a trace id is, and
    Prosody's clients in other languages drop a ``traceparent`` that has it.
    """
    carrier: dict[str, str] = {}
    if not context:
        return carrier  # nearly always where nothing is traced
    _baggage.inject(carrier, context)
    span = trace.get_current_span(context).get_span_context()
    if span.is_valid:
        flags = span.trace_flags & TraceFlags.SAMPLED
        carrier["traceparent"] = f"00-{span.trace_id:032x}-{span.span_id:016x}-{flags:02x}"
        if span.trace_state:
            carrier["tracestate"] = span.trace_state.to_header()
    return carrier


def extract(carrier: Mapping[str, str], base: Context) -> tuple[SpanContext | None, Context]:
    """The span that headers name, None when they name none; and ``base`` with their baggage."""
    if not carrier:
        return None, base
    if "baggage" in carrier:
        base = _baggage.extract(carrier, base)
    parent = carrier.get("traceparent")
    if parent is None:
        return None, base
    found = _TRACEPARENT(parent)
    if found is None or "tracestate" in carrier:
        # Rare, and full of rules; the API knows them.
        span = trace.get_current_span(_trace_context.extract(carrier, _EMPTY)).get_span_context()
    else:
        trace_id, span_id, flags = found.groups()
        span = SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)))
    return (span if span.is_valid else None), base


_EMPTY = contexts.Context()


def within(span: SpanContext, base: Context) -> Context:
    """``base`` with a span of another process, or of another time, as the current one."""
    return trace.set_span_in_context(NonRecordingSpan(span), base)
