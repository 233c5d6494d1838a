"""Trace context: from the caller's span into the headers of what is sent."""

from __future__ import annotations

from opentelemetry import baggage, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_propagators = (W3CBaggagePropagator(), TraceContextTextMapPropagator())


def trace_headers() -> list[tuple[str, bytes | None]]:
    """W3C ``baggage``, ``traceparent`` and ``tracestate`` of the current span, as record headers.

    Empty when there is neither a span nor baggage, so that a program without tracing pays and sends
    nothing for it.
    """
    return [(name, value.encode()) for name, value in current_trace().items()]


def current_trace() -> dict[str, str]:
    """The same by name; what a timer keeps."""
    if not trace.get_current_span().get_span_context().is_valid and not baggage.get_all():
        return {}
    carrier: dict[str, str] = {}
    for propagator in _propagators:
        propagator.inject(carrier)
    return carrier
