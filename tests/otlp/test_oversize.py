"""Spans that no delivery could carry are refused one by one, and only they."""

from __future__ import annotations

import json
import sys
import time

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.otlp.decode import decode
from gateway.otlp.media import Decoded, Media
from gateway.otlp.oversize import SPAN_TOO_LARGE
from tests.kit.spans import attribute, make_request, make_span

LIMIT = 8000


def taken(body: bytes, media: Media = Media.PROTOBUF, limit: int = LIMIT) -> Decoded:
    return decode(
        body, media, now_ns=time.time_ns(), max_spans=100, max_bytes=4000, max_span_bytes=limit
    )


def large_span(size: int = LIMIT, **fields):
    return make_span("large", attributes=[attribute("a", "x" * size)], **fields)


def names(decoded: Decoded) -> list[str]:
    return [
        span.name
        for payload, _ in decoded.payloads
        for resource in ExportTraceServiceRequest.FromString(payload).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def as_json(request: ExportTraceServiceRequest) -> bytes:
    document = MessageToDict(request, use_integers_for_enums=True)
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for key in ("traceId", "spanId"):
                    span[key] = ("ab" * 16)[: 32 if key == "traceId" else 16]
    return json.dumps(document).encode()


@pytest.mark.parametrize("media", Media)
def test_a_span_above_the_limit_is_refused_with_limit_and_remedy_and_the_others_are_taken(media):
    request = make_request(make_span("a"), large_span(), make_span("b"), large_span())
    body = as_json(request) if media is Media.JSON else request.SerializeToString()
    decoded = taken(body, media)
    assert names(decoded) == ["a", "b"]
    assert (decoded.accepted, decoded.rejected) == (2, {SPAN_TOO_LARGE: 2})
    assert "2 spans refused: span_too_large. First 'large'" in decoded.message
    assert "GATEWAY_MAX_SPAN_BYTES" in decoded.message
    assert len(decoded.trace_id or "") == 32


def test_the_limit_is_what_a_delivery_of_the_span_alone_would_have():
    body = make_request(large_span(5000)).SerializeToString()
    assert taken(body, limit=len(body)).payloads == ((body, 1),)
    assert taken(body, limit=len(body) - 1).payloads == ()


def test_a_request_of_nothing_else_is_refused_span_by_span():
    decoded = taken(make_request(large_span()).SerializeToString())
    assert (decoded.payloads, decoded.accepted) == ((), 0)


def test_refusals_for_other_reasons_are_told_too():
    bad = make_span("bad", trace_id=b"short")
    decoded = taken(make_request(bad, large_span(), make_span("good")).SerializeToString())
    assert names(decoded) == ["good"]
    assert decoded.rejected == {"trace_id_length": 1, SPAN_TOO_LARGE: 1}
    assert "trace_id_length 1" in decoded.message
    assert SPAN_TOO_LARGE in decoded.message
    assert decoded.trace_id == b"short".hex()


def test_many_spans_that_are_large_together_are_split_and_taken():
    request = make_request(*(large_span(3000) for _ in range(9)))
    decoded = taken(request.SerializeToString())
    assert (decoded.accepted, decoded.message) == (9, "")


def test_without_a_limit_everything_is_taken():
    body = make_request(large_span()).SerializeToString()
    decoded = decode(body, Media.PROTOBUF, now_ns=time.time_ns(), max_spans=100, max_bytes=4000)
    assert decoded == taken(body, limit=sys.maxsize)
    assert decoded.accepted == 1
