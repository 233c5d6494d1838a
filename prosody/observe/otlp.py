"""A tracer provider of a client's own, for a program that configured none but says where spans go.

It is never made the global one. So nothing of it is seen by the program, and a provider that the
program sets later takes over.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import importlib.metadata
import logging
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.trace import Tracer

_log = logging.getLogger("prosody.tracing")

T = TypeVar("T")

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

FLUSH_S_MAX: Final = 5.0
"""An exporter tries for much longer to reach a collector that is down; nobody's shutdown waits so long."""

_EXPORTERS: Final = {
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
}


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the standard variables ask for traces to be exported."""
    return (
        any(environment.get(name, "").strip() for name in ENDPOINTS)
        and environment.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"
        and environment.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() in {"", "otlp"}
    )


async def begin(environment: Mapping[str, str]) -> Exporting | None:
    """Make the provider, in a thread: what is imported for it takes long. None when it cannot be."""
    try:
        return await _in_thread(lambda: _make(environment))
    except ImportError as error:
        _log.info(
            "no spans are exported, although %s is set: %s (pip install 'prosody-asyncio[otlp]')",
            next(name for name in ENDPOINTS if environment.get(name)),
            error,
        )
    except Exception:  # noqa: BLE001  # whatever a library made of its variables
        _log.warning("no spans are exported: the exporter cannot be made", exc_info=True)
    return None


class Exporting:
    """A provider whose spans are exported in batches."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self.tracer: Tracer = provider.get_tracer(
            "prosody", importlib.metadata.version("prosody-asyncio")
        )

    async def flush(self) -> None:
        """Export what has ended by now, within ``FLUSH_S_MAX``."""
        await _bounded(self._provider.force_flush)

    async def close(self) -> None:
        """The same, and end the exporter's thread."""
        await _bounded(self._provider.shutdown)


def _make(environment: Mapping[str, str]) -> Exporting | None:
    protocol = (
        environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "http/protobuf"
    ).strip()
    module = _EXPORTERS.get(protocol)
    if module is None:
        _log.warning(
            "no spans are exported: OTEL_EXPORTER_OTLP_PROTOCOL is %r, not one of %s",
            protocol,
            ", ".join(_EXPORTERS),
        )
        return None
    exporter = importlib.import_module(module).OTLPSpanExporter()
    sdk = importlib.import_module("opentelemetry.sdk.trace")
    export = importlib.import_module("opentelemetry.sdk.trace.export")
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.BatchSpanProcessor(exporter))
    return Exporting(provider)


async def _bounded(call: Callable[[], Any]) -> None:
    try:
        async with asyncio.timeout(FLUSH_S_MAX):
            await _in_thread(call)
    except TimeoutError:
        _log.warning("spans were not exported within %g s; going on without", FLUSH_S_MAX)
    except Exception:  # noqa: BLE001  # the exporter's own; nothing else depends on it
        _log.warning("spans were not exported", exc_info=True)


async def _in_thread(call: Callable[[], T]) -> T:
    """Run a call that blocks. In a thread of its own, which nothing waits for: a thread of the loop's
    executor would hold up the loop's end for as long as a collector does not answer."""
    done: concurrent.futures.Future[T] = concurrent.futures.Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001  # it belongs to who waits
            done.set_exception(error)
        else:
            done.set_result(result)

    threading.Thread(target=run, name="prosody-otlp", daemon=True).start()
    return await asyncio.wrap_future(done)
