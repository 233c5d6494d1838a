"""A tracer provider whose spans a test can look at, set as the program's own for one test."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.trace import SpanContext


class Told(InMemorySpanExporter):
    """Tells when spans have ended."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = asyncio.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        self.changed.set()
        return result


class Spans:
    """Makes spans and keeps those that have ended."""

    def __init__(self) -> None:
        self.exporter = Told()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")

    def configure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Become the program's provider. By a private name: a program can set it only once."""
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", self.provider)

    def named(self, name: str) -> list[ReadableSpan]:
        """Ended spans of a name, in the order of their end."""
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        found = self.named(name)
        assert len(found) == 1, f"{len(found)} spans {name!r} in {self.names()}"
        return found[0]

    async def until(self, name: str, count: int = 1) -> list[ReadableSpan]:
        """Wait until so many spans of a name have ended."""
        async with asyncio.timeout(60.0):
            while len(self.named(name)) < count:
                self.exporter.changed.clear()
                await self.exporter.changed.wait()
        return self.named(name)

    def names(self) -> list[str]:
        return [span.name for span in self.exporter.get_finished_spans()]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """Tests of a folder have it by an import in its ``conftest.py``."""
    found = Spans()
    found.configure(monkeypatch)
    return found


def context_of(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    """Whether ``span`` is a direct child of ``parent``, in its trace."""
    of = context_of(parent)
    return (
        span.parent is not None
        and span.parent.span_id == of.span_id
        and context_of(span).trace_id == of.trace_id
    )


def is_linked(span: ReadableSpan, cause: ReadableSpan) -> bool:
    """Whether ``span`` began a trace of its own, with one link, to ``cause``."""
    ids = [(link.context.trace_id, link.context.span_id) for link in span.links]
    of = context_of(cause)
    return (
        span.parent is None
        and context_of(span).trace_id != of.trace_id
        and ids == [(of.trace_id, of.span_id)]
    )
