"""Spans around handlers: each run of a handler method is one, and is the current one while it runs.

The methods themselves are replaced, in the table that ``Invoke`` looks them up in, and only while
somebody wants spans. So without a provider there is nothing on the way of a message, not even a question.
And a second attempt, which runs in contextvars of its own, has its span in these and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, SpanKind

from prosody.model.message import ExciseMessage, Timer
from prosody.model.times import seconds_from_utc
from prosody.model.trace import ATTEMPTED
from prosody.observe import spans
from prosody.observe.propagation import extract, inject, within

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from prosody.broker.protocol import SentRecord, TopicPartition
    from prosody.model.run import Run
    from prosody.observe.tracing import Tracing

_CHILD = "child"


class HandlerSpans:
    """The spans of one subscription's handlers, and of its dead letters.

    A first attempt is a child of the span that sent the message or set the timer, or begins a trace with
    a link to it. Later attempts, in place or after a deferral, are children of the first one.
    """

    def __init__(
        self, tracing: Tracing, *, message_spans: str, timer_spans: str, group_id: str
    ) -> None:
        """To be made in the context variables that handlers run in.

        :param message_spans: ``child`` or ``follows_from``; of timers likewise.
        """
        self._tracing = tracing
        self._messages_are_children = message_spans == _CHILD
        self._timers_are_children = timer_spans == _CHILD
        self._group_id = group_id
        current = contexts.get_current()
        self._base = trace.set_span_in_context(INVALID_SPAN, current) if current else current
        """What handlers have as context beside span and baggage. Not the span that was current at
        ``subscribe``: it may last as long as the subscription, and no message is a part of it."""
        self.live = False
        """Whether there is a tracer, so that handlers have spans."""
        self.opened: Callable[[Run, Mapping[str, str]], None] | None = None
        """Told of each span when it is the current one, with the headers that name it."""
        self._attributes: dict[TopicPartition, dict[str, str]] = {}
        self._tracer: Tracer | None = None
        self._methods: dict[type, Any] = {}
        self._plain: dict[type, Any] = {}
        self._not_async: Callable[[Any, object], Exception] = _never

    def surround(
        self, methods: dict[type, Any], not_async: Callable[[Any, object], Exception]
    ) -> None:
        """Take over ``methods``, handler methods by the type of what they are given.

        :param not_async: the error for a method that returned nothing to wait for.
        """
        self._methods = methods
        self._plain = dict(methods)
        self._not_async = not_async
        self.look()

    def look(self) -> None:
        """Has a tracer come, or changed? Asked from time to time, by the poller."""
        tracer = self._tracing.tracer()
        if tracer is self._tracer:
            return
        self._tracer = tracer
        self.live = tracer is not None
        for kind, method in self._plain.items():
            self._methods[kind] = method if tracer is None else self._traced(tracer, method)

    def _traced(self, tracer: Tracer, method: Any) -> Any:
        open_span = self._open
        not_async = self._not_async
        tracing = self._tracing
        attach, detach = contexts.attach, contexts.detach

        async def traced(context: Any, event: Any) -> None:
            run: Run = context._run
            try:
                span, current = open_span(tracer, run, event)
                if self.opened is not None:
                    self.opened(run, inject(current))
            except Exception:  # noqa: BLE001
                tracing.failed()
                span, current = INVALID_SPAN, contexts.get_current()
            token = attach(current)
            in_place = True
            try:
                pending = method(context, event)
                if not hasattr(pending, "__await__"):
                    raise not_async(method, pending)  # noqa: TRY301  # a function would cost a call
                await pending
            except GeneratorExit:
                # Nobody runs this any more, so it is not in its own context that it is closed.
                in_place = False
                raise
            except BaseException as error:
                spans.fail(span, error)
                first = run.trace is None or ATTEMPTED not in run.trace
                if first and span.get_span_context().is_valid:
                    run.trace = {**inject(current), ATTEMPTED: str(_position(run))}
                raise
            finally:
                if in_place:
                    detach(token)
                try:
                    span.end()
                except Exception:  # noqa: BLE001
                    tracing.failed()

        return traced

    def _open(self, tracer: Tracer, run: Run, event: Any) -> tuple[Span, Context]:
        """The span of an attempt, and the context in which its handler runs."""
        place = run.partition.topic_partition
        attributes: dict[str, Any] = dict(self._attributes.get(place) or self._of(place))
        if type(event) is Timer:
            name = f"{spans.TIMER} {place.topic}"
            child = self._timers_are_children
            attributes[spans.OPERATION_NAME] = spans.TIMER
            attributes[spans.KEY] = run.key
            attributes[spans.TIMER_TIME] = event.time.isoformat()
        else:
            name = f"{spans.PROCESS} {place.topic}"
            child = self._messages_are_children
            record = run.record
            assert record is not None, "a message or excise message comes of a record"
            attributes[spans.OFFSET] = record.offset
            if record.key is not None:
                attributes[spans.KEY] = run.key
            if type(event) is ExciseMessage:
                attributes[spans.TOMBSTONE] = True
        if run.attempt > 1:
            attributes[spans.ATTEMPT] = run.attempt
        if run.redelivered:
            attributes[spans.REDELIVERED] = True
        origin = run.origin()
        sender, base = extract(origin, self._base)
        if sender is None:
            span = tracer.start_span(name, base, SpanKind.CONSUMER, attributes)
        elif child or ATTEMPTED in origin:
            span = tracer.start_span(name, within(sender, base), SpanKind.CONSUMER, attributes)
        else:
            links = (spans.follows_from(sender),)
            span = tracer.start_span(name, base, SpanKind.CONSUMER, attributes, links)
        return span, trace.set_span_in_context(span, base)

    def _of(self, place: TopicPartition) -> dict[str, str]:
        """The attributes that all spans of a partition share."""
        found = self._attributes[place] = {
            spans.SYSTEM: spans.KAFKA,
            spans.OPERATION_NAME: spans.PROCESS,
            spans.OPERATION_TYPE: spans.PROCESS,
            spans.DESTINATION: place.topic,
            spans.PARTITION: str(place.partition),
            spans.GROUP: self._group_id,
        }
        return found

    # -- dead letters -----------------------------------------------------------------------------

    def dead_letter(
        self, run: Run, topic: str, value: bytes | None, headers: list[tuple[str, bytes | None]]
    ) -> DeadLetterSpan | None:
        """The span of a dead letter's way to ``topic``, part of the trace of what failed; None when nobody
        wants one.

        What failed keeps the trace in its headers, where a consumer of the failure topic goes on. A timer
        has none, so its dead letter is given this span: ``headers`` is added to.
        """
        tracer = self._tracing.tracer()
        if tracer is None:
            return None
        try:
            origin, base = extract(run.origin(), self._base)
            own = not any(name == "traceparent" for name, _ in headers)
            span = spans.start_send(
                tracer,
                topic,
                run.key,
                len(value or b""),
                base if origin is None else within(origin, base),
                SpanKind.PRODUCER if own else SpanKind.CLIENT,
            )
            if own:
                found = inject(trace.set_span_in_context(span, base))
                headers.extend((name, text.encode()) for name, text in found.items())
        except Exception:  # noqa: BLE001
            self._tracing.failed()
            return None
        return DeadLetterSpan(span, self._tracing)


class DeadLetterSpan:
    """Around all tries to write one dead letter."""

    def __init__(self, span: Span, tracing: Tracing) -> None:
        self._span = span
        self._tracing = tracing

    def refused(self, error: BaseException) -> None:
        """A try failed; there will be another."""
        self._span.record_exception(error)

    def end(self, sent: SentRecord | None) -> None:
        """It is written; or it is not, and the next owner of the partition writes its own."""
        try:
            if sent is not None:
                spans.sent(self._span, sent)
            self._span.end()
        except Exception:  # noqa: BLE001
            self._tracing.failed()


def _position(run: Run) -> int:
    """What a stored trace knows the event by."""
    if isinstance(run.event, Timer):
        return seconds_from_utc(run.event.time)
    assert run.record is not None, "a message or excise message comes of a record"
    return run.record.offset


def _never(method: Any, returned: object) -> Exception:
    return AssertionError(f"{method} returned {returned}")
