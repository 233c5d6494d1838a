"""Where a client's spans go: the program's tracer provider, else one of the client's own, else nowhere."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import os
from typing import TYPE_CHECKING

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import NoOpTracer, ProxyTracer

from prosody.observe import otlp
from prosody.observe.propagation import inject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer, TracerProvider

    from prosody.observe.otlp import Exporting

_log = logging.getLogger("prosody.tracing")


def trace_headers(context: Context | None = None) -> list[tuple[str, bytes | None]]:
    """W3C ``baggage``, ``traceparent`` and ``tracestate`` of a context, as record headers.

    Empty when there is neither a span nor baggage, so that a program without tracing pays and sends
    nothing for it.

    :param context: the current one unless given.
    """
    found = inject(contexts.get_current() if context is None else context)
    return [(name, value.encode()) for name, value in found.items()]


def current_trace() -> dict[str, str]:
    """The same by name; what a timer keeps."""
    return inject(contexts.get_current())


class Tracing:
    """The tracer of one client, which may change while the client lives.

    A program may set its provider after it has subscribed; it can set one only once. Until then, and only
    if ``OTEL_EXPORTER_OTLP_ENDPOINT`` says where spans go, the client has a provider of its own.
    """

    def __init__(self, *, own: bool = False, environment: Mapping[str, str] = os.environ) -> None:
        """:param own: whether a provider of the client's own may be made."""
        self._environment = environment
        self._seen: TracerProvider | None = None
        """The program's provider when it was last looked at."""
        self._tracer: Tracer | None = None
        self._broken = False
        self._told = False
        self._undecided = own and otlp.is_wanted(environment)
        """Whether a provider of our own may still have to be made."""
        self._beginning: asyncio.Task[None] | None = None
        self._own: Exporting | None = None

    def tracer(self) -> Tracer | None:
        """What spans are made with now; None when nobody wants any. Cheap enough for each send."""
        if self._broken:
            return self._tracer
        try:
            provider = trace.get_tracer_provider()
            if provider is not self._seen:
                self._look(provider)
        except Exception:  # noqa: BLE001  # whatever was configured
            # The API loads what OTEL_PYTHON_TRACER_PROVIDER names, and fails each time if it cannot.
            self._broken = True
            _log.error("no spans are made: the tracer provider cannot be used", exc_info=True)
        return self._tracer

    async def begin(self) -> None:
        """Before the first send or subscription: make a provider of our own, if one is wanted."""
        if not self._undecided:
            return
        if self.tracer() is not None:
            self._undecided = False
            return
        loop = asyncio.get_running_loop()
        if self._beginning is None or self._beginning.get_loop() is not loop:
            self._beginning = loop.create_task(self._begin(), name="prosody-tracing")
        # Waited for by all who come meanwhile: none of them may take it away from the others.
        await asyncio.shield(self._beginning)

    async def _begin(self) -> None:
        self._own = await otlp.begin(self._environment)
        self._undecided = False
        self._beginning = None
        self._seen = None  # look again: now there may be something to fall back on

    async def flush(self) -> None:
        """Have a provider of our own export what it has, within a few seconds, beside the event loop."""
        own = self._own
        if own is None:
            return
        if self._tracer is not own.tracer:
            # The program's own provider took over; what this one had begun has ended meanwhile.
            self._own = None
            await own.close()
        else:
            await own.flush()

    async def close(self) -> None:
        """The same, for good."""
        own, self._own = self._own, None
        if own is not None:
            if self._tracer is own.tracer:
                self._tracer = None
            await own.close()

    def failed(self) -> None:
        """A span could not be made or ended, which must not fail what it is around. To be called while the
        error is handled; told once."""
        if not self._told:
            self._told = True
            _log.exception("a span is missing: the tracer provider failed (told once)")

    def _look(self, provider: TracerProvider) -> None:
        self._seen = provider
        tracer = provider.get_tracer("prosody", importlib.metadata.version("prosody-asyncio"))
        # Not the provider is asked but what it makes: OTEL_SDK_DISABLED turns a real one off.
        if not isinstance(tracer, NoOpTracer | ProxyTracer) and not _never_samples(tracer):
            self._tracer = tracer
        else:
            self._tracer = None if self._own is None else self._own.tracer


def _never_samples(tracer: Tracer) -> bool:
    """Whether a tracer of the SDK was told to record nothing at all."""
    sampler = getattr(tracer, "sampler", None)
    describe = getattr(sampler, "get_description", None)
    return describe is not None and describe() == "AlwaysOffSampler"
