"""The exporters that applications use, against both receivers."""

from __future__ import annotations

import asyncio
import sys

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.kit.receivers import started_receivers


@pytest.fixture
async def receivers():
    async with started_receivers() as started:
        yield started


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("transport", ["grpc", "http"])
async def test_the_python_sdk_delivers(receivers, transport, compression):
    """In a process of its own, as an application runs it."""
    endpoint = {
        "grpc": f"http://{receivers.grpc_target}",
        "http": f"{receivers.url}/v1/traces",
    }[transport]
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SDK_CLIENT, transport, endpoint, compression),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(child.communicate(), 30)
    assert (child.returncode, output.decode()) == (0, "exported\n")
    assert receivers.counts() == {
        f"received_spans/{transport}/protobuf": 5,
        "accepted_spans": 5,
    }
    request = ExportTraceServiceRequest.FromString(receivers.intake.payload)
    names = [
        span.name
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert sorted(names) == [f"work {number}" for number in range(5)]


SDK_CLIENT = """
import sys
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

transport, endpoint, compression = sys.argv[1:]
if transport == "grpc":
    import grpc
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    kinds = {"none": grpc.Compression.NoCompression, "gzip": grpc.Compression.Gzip}
    exporter = OTLPSpanExporter(endpoint, insecure=True, compression=kinds[compression])
else:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    exporter = OTLPSpanExporter(endpoint, compression=Compression(compression))
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(exporter))
tracer = provider.get_tracer("tests")
for number in range(5):
    tracer.start_span(f"work {number}").end()
print("exported" if provider.force_flush(20_000) else "failed")
provider.shutdown()
"""
