"""Traces over the whole way, on both brokers: ``send``, handlers, timers, retries, dead letters."""

from __future__ import annotations

import asyncio
import contextvars
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as contexts
from opentelemetry.trace import SpanKind, StatusCode

from prosody import Context, ExciseMessage, Message, PayloadError, SendError, Timer
from prosody.broker.memory import MemoryBroker
from prosody.stores.memory import MemoryStores, MemoryStoreState
from tests.client.support import DEADLINE_S, Place, Recorder, run_simulated, unique
from tests.observe.tracers import Spans, context_of, is_child, is_linked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from opentelemetry.sdk.trace import ReadableSpan


@pytest.fixture
def _stores(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Timers and deferral over a real Kafka too, without a Cassandra: it keeps the same maps."""
    if not isinstance(place.broker, MemoryBroker):
        state = MemoryStoreState()
        monkeypatch.setattr(
            "prosody.client.make_stores",
            lambda config, runtime, cluster: MemoryStores(state, runtime=runtime, dedup_ttl_s=60.0),
        )


class Service:
    """Runs what it is told in its handlers, and notes what it saw as current."""

    def __init__(self) -> None:
        self.message: Callable[[Context, Message], Awaitable[None]] | None = None
        self.timer: Callable[[Context, Timer], Awaitable[None]] | None = None
        self.seen: list[tuple[str, int, dict[str, Any]]] = []
        """"message", "timer" or "excise", the id of the current span, and the current baggage."""
        self._changed = asyncio.Event()

    def _note(self, what: str) -> None:
        current = trace.get_current_span().get_span_context()
        self.seen.append((what, current.span_id, dict(baggage.get_all())))

    async def on_message(self, context: Context, message: Message) -> None:
        self._note("message")
        try:
            if self.message is not None:
                await self.message(context, message)
        finally:
            self._changed.set()

    async def on_timer(self, context: Context, timer: Timer) -> None:
        self._note("timer")
        try:
            if self.timer is not None:
                await self.timer(context, timer)
        finally:
            self._changed.set()

    async def on_excise(self, context: Context, message: ExciseMessage) -> None:
        self._note("excise")
        self._changed.set()

    async def until(self, calls: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while len(self.seen) < calls:
                self._changed.clear()
                await self._changed.wait()

    def span_ids(self, what: str) -> list[int]:
        return [span_id for kind, span_id, _ in self.seen if kind == what]


def times(failures: int) -> Callable[..., Awaitable[None]]:
    """Fails so often, then does well."""
    left = failures

    async def behave(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise ValueError(f"{left} more")

    return behave


def ids(found: list[ReadableSpan]) -> list[int]:
    return [context_of(span).span_id for span in found]


@pytest.mark.usefixtures("_stores")
@pytest.mark.parametrize("relation", ["child", "follows_from"])
async def test_send_message_timer_and_deferred_retries_are_traced(
    place: Place, spans: Spans, relation: str
) -> None:
    await place.create_topic()
    service = Service()
    fails = times(2)  # once before it is deferred, once afterwards

    async def on_message(context: Context, message: Message) -> None:
        await fails()
        await context.schedule(datetime.now(UTC) - timedelta(seconds=1))

    service.message = on_message
    service.timer = times(1)
    client = place.client(
        mode="pipeline", defer_base=0.01, message_spans=relation, timer_spans=relation
    )
    await client.subscribe(service)
    token = contexts.attach(baggage.set_baggage("tenant", "a"))
    with spans.tracer.start_as_current_span("take-order"):
        await client.send(place.topic, "k", {"n": 1})
    contexts.detach(token)
    await service.until(5)
    await client.unsubscribe()

    order, sent = spans.one("take-order"), spans.one(f"send {place.topic}")
    processed, fired = spans.named(f"process {place.topic}"), spans.named(f"timer {place.topic}")
    assert len(spans.names()) == 7, spans.names()
    related = is_child if relation == "child" else is_linked
    assert is_child(sent, order)
    assert related(processed[0], sent)
    assert [is_child(later, processed[0]) for later in processed[1:]] == [True, True]
    assert related(fired[0], processed[2]), "set in the third attempt"
    assert is_child(fired[1], fired[0])

    assert service.span_ids("message") == ids(processed)
    assert service.span_ids("timer") == ids(fired)
    assert all(bag == {"tenant": "a"} for _, _, bag in service.seen)
    assert sent.kind is SpanKind.PRODUCER
    assert {span.kind for span in processed + fired} == {SpanKind.CONSUMER}
    ok, failed = StatusCode.UNSET, StatusCode.ERROR
    assert [span.status.status_code for span in processed] == [failed, failed, ok]
    assert [span.status.status_code for span in fired] == [failed, ok]
    assert processed[0].status.description == "ValueError: 1 more"
    assert [event.name for event in processed[0].events] == ["exception"]

    record = (processed[0].attributes or {})["messaging.kafka.offset"]
    everywhere = {
        "messaging.system": "kafka",
        "messaging.destination.name": place.topic,
        "messaging.destination.partition.id": (sent.attributes or {})[
            "messaging.destination.partition.id"
        ],
        "messaging.kafka.message.key": "k",
    }
    assert sent.attributes == {
        **everywhere,
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.message.body.size": len(b'{"n":1}'),
        "messaging.kafka.offset": record,
    }
    assert processed[1].attributes == {
        **everywhere,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": place.group,
        "messaging.kafka.offset": record,
        "error.type": "ValueError",
        "prosody.redelivered": True,
    }
    due = dict(fired[1].attributes or {})
    assert datetime.fromisoformat(str(due.pop("prosody.timer.time"))).tzinfo is not None
    assert due == {
        **everywhere,
        "messaging.operation.name": "timer",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": place.group,
        "prosody.redelivered": True,
    }


@pytest.mark.parametrize("relation", ["child", "follows_from"])
async def test_retries_in_place_and_the_dead_letter_are_traced(
    place: Place, spans: Spans, relation: str
) -> None:
    await place.create_topic()
    failures = await place.create_topic(unique("failures"))
    client = place.client(
        mode="low-latency",
        failure_topic=failures,
        max_retries=1,
        retry_base=0.001,
        message_spans=relation,
    )
    service, morgue = Service(), Service()
    service.message = times(2)
    await client.subscribe(service)
    reader = place.client(group_id=unique("morgue"), subscribed_topics=failures)
    await reader.subscribe(morgue)
    await client.send(place.topic, "k", 1)
    await morgue.until(1)
    await reader.unsubscribe()
    await client.unsubscribe()

    sent, letter = spans.one(f"send {place.topic}"), spans.one(f"send {failures}")
    processed, buried = spans.named(f"process {place.topic}"), spans.one(f"process {failures}")
    assert (is_child if relation == "child" else is_linked)(processed[0], sent)
    assert is_child(processed[1], processed[0])
    assert (processed[1].attributes or {})["prosody.attempt"] == 2
    assert is_child(letter, processed[0])
    assert letter.kind is SpanKind.CLIENT, "the headers keep the trace of what failed"
    assert (letter.attributes or {})["messaging.kafka.message.key"] == "k"
    assert is_child(buried, sent)
    assert morgue.span_ids("message") == ids([buried])


async def test_a_dead_letter_without_a_trace_of_its_own_is_given_one(
    place: Place, spans: Spans
) -> None:
    await place.create_topic()
    failures = await place.create_topic(unique("failures"))
    client = place.client(mode="low-latency", failure_topic=failures, max_retries=0)
    await client.subscribe(Service())
    await place.put(b"no json")
    (letter,) = await spans.until(f"send {failures}")
    await place.put(None)
    (tombstone,) = await spans.until(f"process {place.topic}")
    await client.unsubscribe()
    assert (letter.kind, letter.parent) == (SpanKind.PRODUCER, None)
    assert (tombstone.attributes or {})["messaging.kafka.message.tombstone"] is True
    assert tombstone.parent is None
    if place.mock:
        (record,) = [r for log in place.cluster.logs(failures) for r in log.read(0, 10)]
        assert f"{context_of(letter).span_id:016x}" in str(dict(record.headers)["traceparent"])


@pytest.mark.usefixtures("_stores")
async def test_traces_go_on_after_a_restart(place: Place, spans: Spans) -> None:
    await place.create_topic()
    options = {"mode": "pipeline", "defer_base": 0.01, "message_spans": "follows_from"}
    service = Service()

    async def fails(*_: Any) -> None:
        raise ValueError("not in this version")

    service.message = fails
    client = place.client(**options)
    await client.subscribe(service)
    await client.send(place.topic, "k", 1)
    await service.until(1)
    await client.shutdown()
    before = len(service.seen)
    again = Service()
    client = place.client(**options)
    await client.subscribe(again)
    await again.until(1)
    await client.shutdown()
    processed = spans.named(f"process {place.topic}")
    assert is_linked(processed[0], spans.one(f"send {place.topic}"))
    assert len(processed) == before + 1
    assert all(is_child(later, processed[0]) for later in processed[1:])
    assert (processed[-1].attributes or {})["prosody.redelivered"] is True


async def test_a_send_that_fails_is_an_error_of_its_span(place: Place, spans: Spans) -> None:
    client = place.client(send_timeout=0.5)
    with pytest.raises(SendError):
        await client.send(unique("missing"), "k", 1)
    with pytest.raises(PayloadError):
        await client.send(place.topic, "k", object())  # type: ignore[arg-type]
    (sent,) = spans.exporter.get_finished_spans()
    assert sent.status.status_code is StatusCode.ERROR
    assert str((sent.attributes or {})["error.type"]).startswith("prosody.errors.Send")


async def test_headers_have_plain_flags(place: Place, spans: Spans) -> None:
    await place.create_topic()
    client = place.client()
    recorder = Recorder()
    await client.subscribe(recorder)
    token = contexts.attach(baggage.set_baggage("tenant", "a"))
    await client.send(place.topic, "k", 1)
    contexts.detach(token)
    await recorder.until_handled(1)
    await client.unsubscribe()
    at = context_of(spans.one(f"send {place.topic}"))
    assert at.trace_flags != 1, "this SDK sets the random bit, so the test shows something"
    assert isinstance(place.broker, MemoryBroker) is place.mock
    if place.mock:
        (record,) = [r for log in place.cluster.logs(place.topic) for r in log.read(0, 10)]
        assert list(record.headers) == [
            ("baggage", b"tenant=a"),
            ("traceparent", f"00-{at.trace_id:032x}-{at.span_id:016x}-01".encode()),
            ("source-system", b"tests"),
        ]


# -- no provider, or only later -----------------------------------------------------------------------


async def test_without_a_provider_no_span_is_opened(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_span(*_: Any, **__: Any) -> None:
        raise AssertionError("a span was opened into nothing")

    monkeypatch.setattr(trace.NoOpTracer, "start_span", open_span)
    monkeypatch.setattr(trace.ProxyTracer, "start_span", open_span)
    await place.create_topic()
    client, service = place.client(), Service()
    await client.subscribe(service)
    await client.send(place.topic, "k", 1)
    await service.until(1)
    await client.unsubscribe()
    assert service.seen == [("message", 0, {})]
    if place.mock:
        (record,) = [r for log in place.cluster.logs(place.topic) for r in log.read(0, 10)]
        assert list(record.headers) == [("source-system", b"tests")]


async def test_a_provider_set_after_subscribe_is_used(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.create_topic()
    client, service = place.client(), Service()
    await client.subscribe(service)
    await client.send(place.topic, "k", 1)
    await service.until(1)
    spans = Spans()
    spans.configure(monkeypatch)
    await client.send(place.topic, "k", 2)
    await service.until(2)
    await client.unsubscribe()
    # Which ends first is open: the record can be here before the broker has acknowledged it.
    assert sorted(spans.names()) == [f"process {place.topic}", f"send {place.topic}"]
    assert is_child(spans.one(f"process {place.topic}"), spans.one(f"send {place.topic}"))


async def test_a_provider_that_fails_does_no_harm(
    place: Place, spans: Spans, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Processor:
        def on_start(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("a bad processor")

        def on_end(self, *_: Any) -> None:
            raise RuntimeError("a bad processor")

        _on_ending = on_end

        def shutdown(self) -> None: ...

    spans.provider.add_span_processor(Processor())  # type: ignore[arg-type]
    await place.create_topic()
    client, service = place.client(), Service()
    await client.subscribe(service)
    for n in range(3):
        await client.send(place.topic, "k", n)
    await service.until(3)
    await client.unsubscribe()
    told = [r for r in caplog.records if r.name == "prosody.tracing"]
    assert len(told) == 1
    assert "told once" in told[0].getMessage()


# -- nothing leaks ------------------------------------------------------------------------------------

LEFT: contextvars.ContextVar[str] = contextvars.ContextVar("LEFT", default="")


async def test_nothing_of_a_run_is_seen_by_the_next(place: Place, spans: Spans) -> None:
    """Handlers that leave contexts attached, in first and in later attempts, of one key in one lane."""
    await place.create_topic()
    found: list[tuple[str, dict[str, Any]]] = []

    async def untidy(context: Context, message: Message) -> None:
        found.append((LEFT.get(), dict(baggage.get_all())))
        LEFT.set("left")
        contexts.attach(baggage.set_baggage("left", "here"))
        contexts.attach(trace.set_span_in_context(spans.tracer.start_span("left")))
        if len(found) % 2:
            raise ValueError("once more")

    service = Service()
    service.message = untidy
    client = place.client(mode="pipeline", defer_enabled=False, retry_base=0.0, max_concurrency=1)
    with spans.tracer.start_as_current_span("service"):
        await client.subscribe(service)
    for n in range(5):
        await client.send(place.topic, "k", n)
    await service.until(10)
    await client.unsubscribe()
    processed = spans.named(f"process {place.topic}")
    assert found == [("", {})] * 10
    assert service.span_ids("message") == ids(processed)
    sends = ids(spans.named(f"send {place.topic}"))
    first = processed[::2]
    assert [span.parent.span_id for span in first if span.parent is not None] == sends
    assert all(is_child(b, a) for a, b in zip(first, processed[1::2], strict=True))


async def test_the_span_current_at_subscribe_is_no_parent(place: Place, spans: Spans) -> None:
    await place.create_topic()
    client, service = place.client(), Service()
    with spans.tracer.start_as_current_span("service"):
        await client.subscribe(service)
    await place.put({"n": 1})
    await service.until(1)
    await client.unsubscribe()
    assert spans.one(f"process {place.topic}").parent is None


def test_lanes_are_kept_when_handlers_are_tidy(spans: Spans) -> None:
    """What the span itself needs as context is undone: a lane that differed would end after each run."""
    lanes: set[Any] = set()

    async def main(place: Place) -> None:
        await place.create_topic(partitions=1)
        service = Service()

        async def note(*_: Any) -> None:
            lanes.add(asyncio.current_task())

        service.message = note
        client = place.client(max_concurrency=1)
        await client.subscribe(service)
        for n in range(20):
            await client.send(place.topic, "k", n)
        await service.until(20)
        await client.unsubscribe()

    run_simulated(main)
    assert len(lanes) == 1
    assert len(spans.names()) == 40


def test_a_handler_past_its_deadline_is_an_error_of_its_span(spans: Spans) -> None:
    async def main(place: Place) -> None:
        await place.create_topic()
        service = Service()

        async def hang(*_: Any) -> None:
            await asyncio.Event().wait()

        service.message = hang
        client = place.client(timeout=1.0)
        await client.subscribe(service)
        await client.send(place.topic, "k", 1)
        await spans.until(f"process {place.topic}")
        await client.unsubscribe()

    run_simulated(main)
    (processed,) = [s for s in spans.exporter.get_finished_spans() if s.name.startswith("process")]
    assert processed.status.status_code is StatusCode.ERROR
    assert (processed.attributes or {})["error.type"] == "asyncio.exceptions.CancelledError"
