from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.embedded.decode import BadRequestError, decode
from gateway.embedded.messages import ResourceSpans, Span
from gateway.errors import GrpcCode
from tests.kit.spans import attribute, make_request, make_span

INT64_MAX = 2**63 - 1


def decoded(*spans, **fields):
    return decode(make_request(*spans, **fields).SerializeToString())


def test_spans_come_by_trace_with_what_a_search_needs():
    root = make_span(
        "root", start_time_unix_nano=1000, end_time_unix_nano=5000, parent_span_id=bytes(8)
    )
    child = make_span(
        "child",
        trace_id=root.trace_id,
        parent_span_id=root.span_id,
        start_time_unix_nano=500,
        end_time_unix_nano=7000,
        status={"code": 2, "message": "boom"},
    )
    other = make_span("other")
    result = decoded(child, root, other, service="shop")
    assert result.spans == 3
    assert result.traces.keys() == {root.trace_id, other.trace_id}
    trace = result.traces[root.trace_id]
    assert (trace.start_ns, trace.end_ns) == (500, 7000)
    assert (trace.root_name, trace.root_service) == ("root", "shop")
    row = trace.spans[0]
    assert row[:7] == (child.span_id, child.kind, 0, "child", 500, 6500, 2)
    assert row.body == child.SerializeToString()


def test_each_scope_of_each_resource_is_an_origin():
    request = make_request(make_span(), service="a", scope="one")
    request.resource_spans[0].schema_url = "https://schema/1"
    scope_spans = request.resource_spans[0].scope_spans.add()
    scope_spans.scope.name = "two"
    scope_spans.spans.append(make_span())
    request.resource_spans[0].scope_spans.add().scope.name = "without spans"
    request.MergeFrom(make_request(make_span(), service="b", scope="three"))
    headers = [
        ResourceSpans.FromString(each) for each in decode(request.SerializeToString()).origins
    ]
    names = [
        (header.resource.attributes[0].value.string_value, header.scope_spans[0].scope.name)
        for header in headers
    ]
    assert names == [(b"a", b"one"), (b"a", b"two"), (b"b", b"three")]
    assert headers[0].schema_url == b"https://schema/1"
    assert not any(scope.spans for header in headers for scope in header.scope_spans)


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"trace_id": b"short"}, GrpcCode.INTERNAL, "invalid TraceID length"),
        ({"span_id": b"123456789"}, GrpcCode.INTERNAL, "invalid SpanID length"),
        ({"parent_span_id": b"1"}, GrpcCode.INTERNAL, "invalid SpanID length"),
        ({"trace_id": b""}, GrpcCode.INVALID_ARGUMENT, "trace ids must be 128 bit"),
        ({"trace_id": bytes(16)}, GrpcCode.INVALID_ARGUMENT, "trace ids must be 128 bit"),
        ({"span_id": b""}, GrpcCode.INVALID_ARGUMENT, "span ids must be 64 bit"),
        ({"span_id": bytes(8)}, GrpcCode.INVALID_ARGUMENT, "span ids must be 64 bit"),
    ],
)
def test_bad_ids_refuse_the_request(fields, code, message):
    bad = make_span()
    for name, value in fields.items():
        setattr(bad, name, value)
    with pytest.raises(BadRequestError, match=message) as refused:
        decoded(make_span(), bad)
    assert refused.value.code == code


def test_times_that_sqlite_cannot_hold_are_cut():
    span = make_span(start_time_unix_nano=2**64 - 1, end_time_unix_nano=5)
    (trace,) = decoded(span).traces.values()
    assert (trace.start_ns, trace.end_ns) == (INT64_MAX, INT64_MAX)
    assert (trace.spans[0].start_ns, trace.spans[0].duration_ns) == (INT64_MAX, 0)


def test_an_end_before_the_start_is_no_time():
    (trace,) = decoded(make_span(start_time_unix_nano=500, end_time_unix_nano=100)).traces.values()
    assert trace.spans[0].duration_ns == 0


def test_text_that_is_not_utf_8_is_kept_as_it_came():
    span = make_span("na@me", attributes=[attribute("key", "va@lue")])
    payload = make_request(span).SerializeToString().replace(b"@", b"\xff")
    (trace,) = decode(payload).traces.values()
    assert trace.spans[0].name == "na\ufffdme"
    stored = Span.FromString(trace.spans[0].body)
    assert stored.name == b"na\xffme"
    assert stored.attributes[0].value.string_value == b"va\xfflue"


def test_an_empty_request_is_nothing():
    assert decode(b"") == ([], {}, 0)


def test_payloads_that_are_joined_are_one_request():
    joined = b"".join(make_request(make_span()).SerializeToString() for _ in range(3))
    assert decode(joined).spans == 3


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(payload):
    with contextlib.suppress(BadRequestError):
        decode(payload)
    with contextlib.suppress(BadRequestError):
        decode(ExportTraceServiceRequest(resource_spans=[{}]).SerializeToString() + payload)
