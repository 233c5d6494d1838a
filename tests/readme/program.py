"""Runs one program of the README in a process of its own: ``python program.py FILE``.

The process has no network to speak of: mock mode is set by the environment, and what would export
spans to a collector keeps them instead.
"""

from __future__ import annotations

import runpy
import sys
import types

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class OTLPSpanExporter(InMemorySpanExporter):
    """Stands where the exporter of the ``otlp`` extra would; tells what it was given."""

    def shutdown(self) -> None:
        print("exported:", *(span.name for span in self.get_finished_spans()))
        super().shutdown()


if __name__ == "__main__":
    stand_in = types.ModuleType(EXPORTER)
    stand_in.OTLPSpanExporter = OTLPSpanExporter  # type: ignore[attr-defined]
    sys.modules[EXPORTER] = stand_in
    runpy.run_path(sys.argv[1], run_name="__main__")
