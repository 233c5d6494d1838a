"""Where spans go: the program's provider, now or later; one of the client's own; nowhere."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import types
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from prosody.observe import otlp
from prosody.observe.tracing import Tracing, trace_headers
from tests.observe.tracers import Spans

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

HTTP = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}


@pytest.fixture
def spans() -> Spans:
    return Spans()


# -- the program's provider ---------------------------------------------------------------------------


def test_without_a_provider_there_is_no_tracer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Tracing().tracer() is None
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", trace.NoOpTracerProvider())
    assert Tracing().tracer() is None


def test_a_provider_that_is_set_later_is_noticed(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracing = Tracing()
    assert tracing.tracer() is None
    spans.configure(monkeypatch)
    tracer = tracing.tracer()
    assert tracer is not None
    tracer.start_span("one").end()
    scope = spans.one("one").instrumentation_scope
    assert scope is not None
    assert (scope.name, bool(scope.version)) == ("prosody", True)
    assert tracing.tracer() is tracer


def test_a_provider_that_records_nothing_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    off = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", off)
    assert Tracing().tracer() is None
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider(shutdown_on_exit=False))
    assert Tracing().tracer() is None


def test_a_provider_that_cannot_be_loaded_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_TRACER_PROVIDER", "no such provider")
    tracing = Tracing()
    assert [tracing.tracer(), tracing.tracer()] == [None, None]
    ours = [record for record in caplog.records if record.name == "prosody.tracing"]
    assert [record.levelno for record in ours] == [logging.ERROR]


def test_headers_are_those_of_the_current_span(spans: Spans) -> None:
    assert trace_headers() == []
    with spans.tracer.start_as_current_span("s") as span:
        at = span.get_span_context()
        parent = f"00-{at.trace_id:032x}-{at.span_id:016x}-01"
        assert trace_headers() == [("traceparent", parent.encode())]
        assert trace_headers(contexts.Context()) == []


# -- the client's own ---------------------------------------------------------------------------------


class Exporter(SpanExporter):
    """Stands where the exporter of the ``otlp`` extra would; a collector that may not answer."""

    made: ClassVar[list[Exporter]]
    answers: ClassVar[threading.Event]

    def __init__(self) -> None:
        self.exported: list[str] = []
        self.threads: set[str] = set()
        self.over = False
        self.made.append(self)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.threads.add(threading.current_thread().name)
        self.answers.wait(30)
        self.exported += [span.name for span in spans]
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.over = True


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Exporter]]:
    class Here(Exporter):
        made: ClassVar[list[Exporter]] = []
        answers = threading.Event()

    Here.answers.set()
    module = types.ModuleType(HTTP)
    module.OTLPSpanExporter = Here  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, HTTP, module)
    yield Here
    Here.answers.set()


async def begun(**variables: str) -> Tracing:
    tracing = Tracing(own=True, environment={**ENDPOINT, **variables})
    await tracing.begin()
    return tracing


async def test_one_of_its_own_is_made_where_the_endpoint_is_said(collector: type[Exporter]) -> None:
    tracing = Tracing(own=True, environment=ENDPOINT)
    assert tracing.tracer() is None, "making a client makes nothing"
    await asyncio.gather(*(tracing.begin() for _ in range(5)))
    assert len(collector.made) == 1
    tracer = tracing.tracer()
    assert tracer is not None
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider), (
        "never the global one"
    )
    tracer.start_span("one").end()
    await tracing.flush()
    assert collector.made[0].exported == ["one"]
    assert threading.main_thread().name not in collector.made[0].threads
    tracer.start_span("two").end()
    await tracing.close()
    assert collector.made[0].exported == ["one", "two"]
    assert (collector.made[0].over, tracing.tracer()) == (True, None)
    await tracing.close()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"},
        {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
    ],
)
async def test_it_is_not_made_where_nobody_asks(
    collector: type[Exporter], environment: dict[str, str]
) -> None:
    tracing = Tracing(own=True, environment=environment)
    await tracing.begin()
    assert (tracing.tracer(), collector.made) == (None, [])


async def test_it_is_not_made_in_mock_mode_nor_beside_another(
    collector: type[Exporter], spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracing = Tracing(own=False, environment=ENDPOINT)
    await tracing.begin()
    assert tracing.tracer() is None
    spans.configure(monkeypatch)
    tracing = await begun()
    assert tracing.tracer() is not None
    assert collector.made == []


async def test_a_provider_of_the_program_takes_over(
    collector: type[Exporter], spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracing = await begun()
    own = tracing.tracer()
    assert own is not None
    running = own.start_span("began before")
    spans.configure(monkeypatch)
    tracer = tracing.tracer()
    assert tracer not in (None, own)
    running.end()
    tracer.start_span("began after").end()  # type: ignore[union-attr]
    await tracing.flush()
    assert (collector.made[0].exported, spans.names()) == (["began before"], ["began after"])
    assert collector.made[0].over, "its thread is not needed any more"


async def test_a_collector_that_does_not_answer_holds_nobody_up(
    collector: type[Exporter], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(otlp, "FLUSH_S_MAX", 0.05)
    tracing = await begun()
    tracer = tracing.tracer()
    assert tracer is not None
    collector.answers.clear()
    tracer.start_span("one").end()
    await tracing.flush()
    assert "not exported within 0.05 s" in caplog.text
    assert collector.made[0].exported == []
    collector.answers.set()
    monkeypatch.setattr(otlp, "FLUSH_S_MAX", 30.0)
    await tracing.close()
    assert collector.made[0].exported == ["one"]


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "'http/json', not one of http/protobuf, grpc",
        ),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "prosody-asyncio[otlp]"),
    ],
)
async def test_without_an_exporter_it_says_so(
    collector: type[Exporter],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    text: str,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc", None)
    with caplog.at_level(logging.INFO, "prosody.tracing"):
        tracing = await begun(**variables)
        await tracing.begin()
    assert (tracing.tracer(), collector.made) == (None, [])
    assert [text in record.getMessage() for record in caplog.records] == [True]


async def test_an_exporter_that_cannot_be_made_is_no_reason_to_fail(
    collector: type[Exporter], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Any) -> None:
        raise ValueError("a certificate that is not there")

    monkeypatch.setattr(collector, "__init__", refuse)
    assert (await begun()).tracer() is None
    assert "cannot be made" in caplog.text
