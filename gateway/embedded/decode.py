"""An OTLP request as rows to store, with the checks that Tempo makes."""

from __future__ import annotations

from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from gateway.embedded.messages import ResourceSpans, TracesData, attribute, text
from gateway.errors import GrpcCode

_INT64_MAX = 2**63 - 1


class BadRequestError(Exception):
    """The whole request is refused with this gRPC status code, as Tempo does."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class SpanRow(NamedTuple):
    """Times are Unix nanoseconds. ``origin`` is an index into ``Decoded.origins``."""

    span_id: bytes
    kind: int
    origin: int
    name: str
    start_ns: int
    duration_ns: int
    status: int
    body: bytes


class TraceRows:
    """The spans of one trace in one request, and what they tell of the trace."""

    __slots__ = ("end_ns", "root_name", "root_service", "spans", "start_ns")

    def __init__(self) -> None:
        self.start_ns = _INT64_MAX
        self.end_ns = 0
        self.root_name = ""
        self.root_service = ""
        self.spans: list[SpanRow] = []


class Decoded(NamedTuple):
    origins: list[bytes]
    """Each a serialized ``ResourceSpans`` with its one scope and no spans."""
    traces: dict[bytes, TraceRows]
    spans: int


def decode(payload: bytes) -> Decoded:
    """Raises BadRequestError. One bad span refuses the request, as in Tempo."""
    try:
        data = TracesData.FromString(payload)
    except DecodeError:
        raise BadRequestError(GrpcCode.INTERNAL, "error unmarshalling request") from None
    origins: list[bytes] = []
    traces: dict[bytes, TraceRows] = {}
    spans = 0
    for resource_spans in data.resource_spans:
        service = _service_name(resource_spans.resource)
        for scope_spans in resource_spans.scope_spans:
            if not scope_spans.spans:
                continue
            origins.append(_origin(resource_spans, scope_spans))
            spans += len(scope_spans.spans)
            for span in scope_spans.spans:
                _check_ids(span)
                trace = traces.get(span.trace_id)
                if trace is None:
                    trace = traces[span.trace_id] = TraceRows()
                _add(trace, span, len(origins) - 1, service)
    return Decoded(origins, traces, spans)


def _service_name(resource: Any) -> str:
    names = attribute(resource.attributes, b"service.name")
    return names[0] if names and isinstance(names[0], str) else ""


def _origin(resource_spans: Any, scope_spans: Any) -> bytes:
    header = ResourceSpans(schema_url=resource_spans.schema_url)
    header.resource.CopyFrom(resource_spans.resource)
    scope = header.scope_spans.add(schema_url=scope_spans.schema_url)
    scope.scope.CopyFrom(scope_spans.scope)
    serialized: bytes = header.SerializeToString()
    return serialized


def _check_ids(span: Any) -> None:
    if len(span.trace_id) not in {0, 16}:
        raise BadRequestError(
            GrpcCode.INTERNAL,
            "error unmarshalling request: invalid TraceID length: send 16 bytes",
        )
    if len(span.span_id) not in {0, 8} or len(span.parent_span_id) not in {0, 8}:
        raise BadRequestError(
            GrpcCode.INTERNAL, "error unmarshalling request: invalid SpanID length: send 8 bytes"
        )
    if not any(span.trace_id):
        raise BadRequestError(
            GrpcCode.INVALID_ARGUMENT, "trace ids must be 128 bit and not all zero"
        )
    if not any(span.span_id):
        raise BadRequestError(GrpcCode.INVALID_ARGUMENT, "span ids must be 64 bit and not all zero")


def _add(trace: TraceRows, span: Any, origin: int, service: str) -> None:
    start_ns = min(span.start_time_unix_nano, _INT64_MAX)
    end_ns = min(max(span.end_time_unix_nano, start_ns), _INT64_MAX)
    name = text(span.name)
    trace.start_ns = min(trace.start_ns, start_ns)
    trace.end_ns = max(trace.end_ns, end_ns)
    if not any(span.parent_span_id):
        trace.root_name, trace.root_service = name, service
    trace.spans.append(
        SpanRow(
            span.span_id,
            span.kind,
            origin,
            name,
            start_ns,
            end_ns - start_ns,
            span.status.code,
            span.SerializeToString(),
        )
    )
