"""Names and attributes of spans, after OpenTelemetry's conventions for messaging and Kafka.

https://opentelemetry.io/docs/specs/semconv/messaging/kafka/; a test compares them with the package of
the conventions, which is no dependency because its names for messaging are not stable yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Link, SpanKind, Status, StatusCode

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext, Tracer

    from prosody.broker.protocol import SentRecord
    from prosody.observe.tracing import Tracing

SYSTEM: Final = "messaging.system"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
DESTINATION: Final = "messaging.destination.name"
PARTITION: Final = "messaging.destination.partition.id"
GROUP: Final = "messaging.consumer.group.name"
BODY_SIZE: Final = "messaging.message.body.size"
KEY: Final = "messaging.kafka.message.key"
OFFSET: Final = "messaging.kafka.offset"
TOMBSTONE: Final = "messaging.kafka.message.tombstone"
ERROR_TYPE: Final = "error.type"
REF_TYPE: Final = "opentracing.ref_type"

KAFKA: Final = "kafka"
SEND: Final = "send"
PROCESS: Final = "process"
TIMER: Final = "timer"
"""The name of the operation that runs a timer; its type is "process". No convention has timers."""

TIMER_TIME: Final = "prosody.timer.time"
"""When a timer was due, in ISO 8601."""
ATTEMPT: Final = "prosody.attempt"
"""Which attempt of a message or timer a span is, from the second on; counted anew after a deferral."""
REDELIVERED: Final = "prosody.redelivered"
"""True where what runs was deferred before."""


def start_send(
    tracer: Tracer,
    topic: str,
    key: str | None,
    body_size: int,
    parent: Context | None = None,
    kind: SpanKind = SpanKind.PRODUCER,
) -> Span:
    """A span around the sending of one record.

    :param parent: the current context unless given.
    :param kind: ``PRODUCER`` where the span's own context goes into the headers, else ``CLIENT``.
    """
    attributes: dict[str, str | int] = {
        SYSTEM: KAFKA,
        OPERATION_NAME: SEND,
        OPERATION_TYPE: SEND,
        DESTINATION: topic,
        BODY_SIZE: body_size,
    }
    if key is not None:
        attributes[KEY] = key
    return tracer.start_span(f"{SEND} {topic}", parent, kind, attributes)


class Sending:
    """The span around one ``send``, as a context manager. A child of the current span; not current itself,
    because nobody's code runs in it."""

    __slots__ = ("_span", "_tracing", "context", "sent")

    def __init__(
        self, tracer: Tracer, tracing: Tracing, topic: str, key: str, body_size: int
    ) -> None:
        self._tracing = tracing
        self.sent: SentRecord | None = None
        """Where the record is, once it is written."""
        self.context = contexts.get_current()
        """What goes into the headers."""
        self._span: Span = INVALID_SPAN
        try:
            self._span = start_send(tracer, topic, key, body_size, self.context)
            self.context = trace.set_span_in_context(self._span, self.context)
        except Exception:  # noqa: BLE001
            tracing.failed()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            fail(self._span, error)
        elif self.sent is not None:
            sent(self._span, self.sent)
        try:
            self._span.end()
        except Exception:  # noqa: BLE001
            self._tracing.failed()


def sent(span: Span, record: SentRecord) -> None:
    """Say where the record is."""
    span.set_attribute(PARTITION, str(record.partition))
    span.set_attribute(OFFSET, record.offset)


def fail(span: Span, error: BaseException) -> None:
    """Record why what the span is around failed: status, ``error.type`` and an event."""
    if not span.is_recording():
        return
    kind = type(error)
    span.set_attribute(ERROR_TYPE, error_type(error))
    try:
        span.set_status(Status(StatusCode.ERROR, f"{kind.__name__}: {error}"))
        span.record_exception(error)
    except Exception:  # noqa: BLE001
        # An error that cannot be written is an error all the same.
        span.set_status(Status(StatusCode.ERROR, kind.__name__))


def error_type(error: BaseException) -> str:
    """What ``error.type`` says of an error: the full name of its class."""
    kind = type(error)
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def follows_from(span: SpanContext) -> Link:
    """The link of a span to the one that caused it, in another trace."""
    return Link(span, _FOLLOWS_FROM)


_FOLLOWS_FROM: Final = {REF_TYPE: "follows_from"}
