"""While handlers are traced, events name the span."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace

from tests.client.support import Recorder, run_simulated, unique
from tests.observe.tracers import Spans
from tests.telemetry.shapes import Events

if TYPE_CHECKING:
    from prosody import Context, Message
    from tests.client.support import Place


def test_events_of_an_attempt_name_its_span(monkeypatch: pytest.MonkeyPatch) -> None:
    Spans().configure(monkeypatch)
    spans: list[str] = []

    async def behave(context: Context, message: Message) -> None:
        span = trace.get_current_span().get_span_context()
        spans.append(f"00-{span.trace_id:032x}-{span.span_id:016x}-01")
        if len(spans) == 1:
            raise ValueError("once")

    async def main(place: Place) -> None:
        await place.create_topic(partitions=1)
        topic = await place.create_topic(unique("telemetry"), partitions=1)
        handler = Recorder(behave)
        client = place.client(
            telemetry_enabled=True, telemetry_topic=topic, mode="pipeline", defer_enabled=False
        )
        await client.subscribe(handler)
        await client.send(place.topic, "k", {"n": 1})
        await handler.until_handled(1)
        await client.unsubscribe()
        events = Events(place, topic)
        sent, *attempts = await events.all()
        await events.stop()
        assert sent["traceParent"].startswith("00-")
        assert [event["traceParent"] for event in attempts] == [
            spans[0], spans[0], spans[1], spans[1]
        ]  # fmt: skip
        assert [event["type"].rpartition(".")[2] for event in attempts] == [
            "dispatched", "failed", "dispatched", "succeeded"
        ]  # fmt: skip
        assert attempts[0]["traceState"] == ""

    run_simulated(main)


def test_a_span_that_cannot_be_made_takes_no_event_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spans = Spans()
    spans.configure(monkeypatch)
    monkeypatch.setattr("prosody.observe.handler_spans.HandlerSpans._open", lambda *_: 1 / 0)

    async def main(place: Place) -> None:
        await place.create_topic(partitions=1)
        topic = await place.create_topic(unique("telemetry"), partitions=1)
        handler = Recorder()
        client = place.client(telemetry_enabled=True, telemetry_topic=topic)
        await client.subscribe(handler)
        await place.put(1)
        await handler.until_handled(1)
        await client.unsubscribe()
        events = Events(place, topic)
        told = await events.all()
        await events.stop()
        assert [event["type"] for event in told] == [
            "prosody.message.dispatched", "prosody.message.succeeded"
        ]  # fmt: skip
        assert "traceParent" not in told[0]

    run_simulated(main)
