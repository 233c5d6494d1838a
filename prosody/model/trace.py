"""The trace of an event as it is carried and stored: W3C headers by name.

What these mean to OpenTelemetry is known in ``observe/`` only. Here they are text that goes on with the
event: from the headers of its record, or from what a timer or a deferred entry keeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prosody.broker.protocol import Headers

TRACE_HEADERS: Final = ("traceparent", "tracestate", "baggage")

ATTEMPTED: Final = "prosody-attempted"
"""Stands beside the headers of a trace that is the span of an event's first attempt, and says of which
event: its offset, or its time in seconds if it is a timer. Later attempts go on in that trace, whatever
``message_spans`` and ``timer_spans`` say of first ones. It is stored, but never sent."""


def carried(headers: Headers) -> dict[str, str]:
    """What the headers of a record say of its trace; of each name the first, as other clients read it."""
    trace: dict[str, str] = {}
    for name, value in headers:
        if name in TRACE_HEADERS and value is not None and name not in trace:
            trace[name] = value.decode("ascii", "replace")
    return trace


def is_attempt_of(trace: Mapping[str, str] | None, position: int) -> bool:
    """Whether a stored trace is that of the first attempt of the event at ``position``."""
    return bool(trace) and trace.get(ATTEMPTED) == str(position)  # type: ignore[union-attr]
