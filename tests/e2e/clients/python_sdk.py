"""Sends one trace of two spans with the official Python exporter and prints its id.

Usage: python python_sdk.py grpc|http-protobuf ENDPOINT SERVICE [gzip]
"""

from __future__ import annotations

import sys

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult


class Checked(SpanExporter):
    """Remembers whether each export succeeded; the processor itself swallows failures."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.failed = False

    def export(self, spans):
        result = self._exporter.export(spans)
        self.failed |= result is not SpanExportResult.SUCCESS
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def make_exporter(transport: str, endpoint: str, *, gzip: bool) -> SpanExporter:
    if transport == "grpc":
        import grpc
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        compression = grpc.Compression.Gzip if gzip else None
        insecure = not endpoint.startswith("https://")
        return OTLPSpanExporter(endpoint=endpoint, insecure=insecure, compression=compression)
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=endpoint, compression=Compression.Gzip if gzip else None)


def main() -> int:
    transport, endpoint, service, *rest = sys.argv[1:]
    exporter = Checked(make_exporter(transport, endpoint, gzip="gzip" in rest))
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("python-client")
    with tracer.start_as_current_span("checkout") as parent:
        parent.set_attribute("http.route", "/cart/{id}")
        parent.set_attribute("items", 3)
        with tracer.start_as_current_span("charge") as child:
            child.add_event("card accepted", {"brand": "visa"})
    provider.shutdown()
    print(f"{parent.get_span_context().trace_id:032x}")
    return 1 if exporter.failed else 0


if __name__ == "__main__":
    sys.exit(main())
