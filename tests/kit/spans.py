"""Builders of OTLP requests with the official protobuf classes."""

from __future__ import annotations

import os
import time

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SECOND_NS = 10**9


def attribute(key: str, value: str | bool | float) -> KeyValue:
    if isinstance(value, bool):
        return KeyValue(key=key, value=AnyValue(bool_value=value))
    if isinstance(value, int):
        return KeyValue(key=key, value=AnyValue(int_value=value))
    if isinstance(value, float):
        return KeyValue(key=key, value=AnyValue(double_value=value))
    return KeyValue(key=key, value=AnyValue(string_value=value))


def make_span(name: str = "checkout", *, trace_id: bytes | None = None, **fields: object) -> Span:
    """A valid span that ended just now; ``fields`` override."""
    now = time.time_ns()
    values: dict[str, object] = {
        "trace_id": trace_id or os.urandom(16),
        "span_id": os.urandom(8),
        "name": name,
        "kind": Span.SpanKind.SPAN_KIND_SERVER,
        "start_time_unix_nano": now - SECOND_NS // 10,
        "end_time_unix_nano": now,
        "attributes": [
            attribute("http.request.method", "GET"),
            attribute("http.route", "/cart/{id}"),
            attribute("http.response.status_code", 200),
            attribute("server.address", "shop.example.com"),
        ],
    }
    values.update(fields)
    return Span(**values)  # type: ignore[arg-type]


def make_request(
    *spans: Span, service: str = "shop", scope: str = "tests.kit"
) -> ExportTraceServiceRequest:
    """One resource with one scope that holds ``spans``."""
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.attributes.append(attribute("service.name", service))
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = scope
    scope_spans.spans.extend(spans)
    return request


def make_payload(count: int = 1, *, service: str = "shop") -> bytes:
    """A serialized request of ``count`` valid spans, one trace each."""
    return make_request(*(make_span() for _ in range(count)), service=service).SerializeToString()
