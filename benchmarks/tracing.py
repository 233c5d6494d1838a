"""``python -m benchmarks.tracing``: what spans cost a message, beside the SDK's own calls for them.

The embedded broker, the pipeline with default options and a no-op handler; every record has a
``traceparent``. A round plays, in an order of its own: the path without any tracing code, the path without
a provider, the path with one that records every span and exports none, and the bare spans: no provider
for the library, but a handler that opens the same span with the same attributes itself
(``start_as_current_span``), and has its parent at hand. Of each the round with the least CPU time counts,
because other programs only ever add to it. Sends likewise, but not over a broker: only what tracing adds
to one. Exits with 1 when a run lost, reordered or did not commit something, or spans cost too much.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import random
import sys
import time
from typing import TYPE_CHECKING, Any
from unittest import mock

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.propagators import textmap
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import prosody._core
from benchmarks.path.contestants import client
from benchmarks.path.places import memory_place
from benchmarks.path.work import Checked, records
from prosody.broker.protocol import SentRecord
from prosody.observe import spans
from prosody.observe.handler_spans import HandlerSpans
from prosody.observe.propagation import extract, within
from prosody.observe.tracing import Tracing, trace_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARENT = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
RATIO_MAX = 1.3
OFF_US_MAX = 0.1
WITHOUT, OFF, ON, BARE = "without the code", "no provider", "recorded", "bare spans"
SEND_BEFORE, SEND_OFF, SEND_ON, SEND_BARE = (
    "send: headers alone", "send: no provider", "send: recorded", "send: bare span"
)  # fmt: skip


def recording() -> TracerProvider:
    """Makes real spans, and has a processor that does nothing with them."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor())
    return provider


@contextlib.contextmanager
def provided(provider: TracerProvider | None) -> Iterator[None]:
    with mock.patch.object(trace, "_TRACER_PROVIDER", provider):
        yield


class Runs:
    """What is played, and whether any of it went wrong."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.work = records("uniform", count, 1000)
        self.broken = False

    async def path(self) -> float:
        """CPU microseconds a message through the whole path, with what is provided now."""
        place = memory_place()
        place.headers = (("traceparent", PARENT.encode()), ("source-system", b"bench"))
        await place.fill(self.work)
        gc.collect()
        gc.freeze()
        row = await client("pipeline")(place, self.count, "uniform 1000", 0.0)
        gc.unfreeze()
        self.broken = self.broken or row.fault
        return row.cpu_us

    async def without(self) -> float:
        """The path as if nothing had been written for tracing."""
        nothing: Callable[..., None] = lambda *_: None  # noqa: E731
        with (
            mock.patch.object(HandlerSpans, "surround", nothing),
            mock.patch.object(HandlerSpans, "look", nothing),
        ):
            return await self.path()

    async def recorded(self) -> float:
        with provided(recording()):
            return await self.path()

    async def bare(self) -> float:
        """The path to a handler that opens the same span itself, with a parent at hand."""
        tracer = recording().get_tracer("bench")
        sender, base = extract({"traceparent": PARENT}, contexts.Context())
        assert sender is not None
        parent = within(sender, base)
        on_message = Checked.on_message

        async def in_span(self: Checked, context: Any, message: Any) -> None:
            attributes = {
                spans.SYSTEM: spans.KAFKA,
                spans.OPERATION_NAME: spans.PROCESS,
                spans.OPERATION_TYPE: spans.PROCESS,
                spans.DESTINATION: message.topic,
                spans.PARTITION: "0",
                spans.GROUP: "bench-group",
                spans.OFFSET: message.offset,
                spans.KEY: message.key,
            }
            with tracer.start_as_current_span(
                "process orders", parent, SpanKind.CONSUMER, attributes
            ):
                await on_message(self, context, message)

        with mock.patch.object(Checked, "on_message", in_span):
            return await self.path()

    def send_before(self) -> float:
        return self._each(lambda _: [*trace_headers()])

    def send_off(self) -> float:
        tracing = Tracing()

        def each(_: int) -> None:
            assert tracing.tracer() is None
            [*trace_headers()]

        return self._each(each)

    def send_on(self) -> float:
        with provided(recording()):
            tracing = Tracing()

            def each(offset: int) -> None:
                tracer = tracing.tracer()
                assert tracer is not None
                with spans.Sending(tracer, tracing, "orders", "key-1", 100) as span:
                    [*trace_headers(span.context)]
                    span.sent = SentRecord("orders", 0, offset)

            return self._each(each)

    def send_bare(self) -> float:
        tracer = recording().get_tracer("bench")
        propagator = TraceContextTextMapPropagator()
        setter = textmap.DefaultSetter()

        def each(offset: int) -> None:
            attributes = {
                spans.SYSTEM: spans.KAFKA,
                spans.OPERATION_NAME: spans.SEND,
                spans.OPERATION_TYPE: spans.SEND,
                spans.DESTINATION: "orders",
                spans.BODY_SIZE: 100,
                spans.KEY: "key-1",
            }
            span = tracer.start_span("send orders", None, SpanKind.PRODUCER, attributes)
            propagator.inject({}, trace.set_span_in_context(span), setter)
            span.set_attribute(spans.PARTITION, "0")
            span.set_attribute(spans.OFFSET, offset)
            span.end()

        return self._each(each)

    def _each(self, call: Callable[[int], object]) -> float:
        gc.collect()
        began = time.process_time()
        for offset in range(self.count):
            call(offset)
        return (time.process_time() - began) / self.count * 1e6


async def measure(count: int, rounds: int) -> int:
    runs = Runs(count)
    contestants: dict[str, Callable[[], Any]] = {
        WITHOUT: runs.without, OFF: runs.path, ON: runs.recorded, BARE: runs.bare,
        SEND_BEFORE: runs.send_before, SEND_OFF: runs.send_off, SEND_ON: runs.send_on,
        SEND_BARE: runs.send_bare,
    }  # fmt: skip
    chance = random.Random(1)
    least: dict[str, float] = {}
    for _ in range(rounds):
        for name in chance.sample(list(contestants), len(contestants)):
            found = contestants[name]()
            if asyncio.iscoroutine(found):
                found = await found
            least[name] = min(least.get(name, found), found)
    off_us = least[OFF] - least[WITHOUT]
    on_us, bare_us = least[ON] - least[OFF], least[BARE] - least[OFF]
    ratio = on_us / bare_us
    print(f"## Tracing, embedded broker ({prosody._core.IMPLEMENTATION})\n")
    print("| | CPU us/message |\n|---|---:|")
    for name in contestants:
        print(f"| {name} | {least[name]:.2f} |")
    print(f"\nno provider: {off_us:+.2f} us a message (bar {OFF_US_MAX})")
    print(
        f"recorded: {on_us:.2f} us a message, {ratio:.2f} of the {bare_us:.2f} us of bare spans "
        f"(bar {RATIO_MAX})"
    )
    send_ratio = least[SEND_ON] / least[SEND_BARE]
    print(f"recorded sends: {send_ratio:.2f} of the bare spans (bar {RATIO_MAX})")
    if runs.broken:
        print("BROKEN: a run lost, reordered or did not commit something")
    # What nothing costs is within what the path's own cost wanders by, so it is told, not judged.
    return 1 if runs.broken or max(ratio, send_ratio) > RATIO_MAX else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracing", description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    return asyncio.run(measure(arguments.messages, arguments.rounds))


if __name__ == "__main__":
    sys.exit(main())
