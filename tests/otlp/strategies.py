"""Hypothesis strategies for OTLP requests, made with the official protobuf classes."""

from __future__ import annotations

import math

from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    EntityRef,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

NOW_NS = 1_800_000_000 * 10**9

text = st.text('aZ-\0"\u00e9\u20ac\U0001f600', max_size=6)
uint32 = st.integers(0, 2**32 - 1)
trace_ids = st.binary(min_size=16, max_size=16).filter(any)
span_ids = st.binary(min_size=8, max_size=8).filter(any)


def few(elements: st.SearchStrategy, most: int = 2) -> st.SearchStrategy[list]:
    return st.lists(elements, max_size=most)


def _containers(values: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[AnyValue]:
    arrays = st.builds(ArrayValue, values=few(values))
    lists = st.builds(KeyValueList, values=few(_key_values(values)))
    return st.builds(AnyValue, array_value=arrays) | st.builds(AnyValue, kvlist_value=lists)


def _key_values(values: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[KeyValue]:
    return st.builds(KeyValue, key=text, value=values) | st.builds(KeyValue, key=text)


scalars = st.one_of(
    st.just(AnyValue()),
    st.builds(AnyValue, string_value=text),
    st.builds(AnyValue, bool_value=st.booleans()),
    st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1)),
    st.builds(AnyValue, double_value=st.floats(allow_nan=False) | st.just(math.nan)),
    st.builds(AnyValue, bytes_value=st.binary(max_size=4)),
)
values = st.recursive(scalars, _containers, max_leaves=4)
attributes = few(_key_values(values))

events = st.builds(
    Span.Event,
    time_unix_nano=st.integers(0, 2**64 - 1),
    name=text,
    attributes=attributes,
    dropped_attributes_count=uint32,
)
links = st.builds(
    Span.Link,
    trace_id=trace_ids,
    span_id=span_ids,
    trace_state=text,
    attributes=attributes,
    dropped_attributes_count=uint32,
    flags=uint32,
)
statuses = st.builds(Status, message=text, code=st.integers(0, 3))


@st.composite
def spans(draw: st.DrawFn) -> Span:
    """A span that keeps every rule at NOW_NS."""
    start = draw(st.integers(1, NOW_NS))
    span = Span(
        trace_id=draw(trace_ids),
        span_id=draw(span_ids),
        parent_span_id=draw(st.just(b"") | st.binary(min_size=8, max_size=8)),
        trace_state=draw(text),
        name=draw(text),
        kind=draw(st.integers(0, 6)),
        start_time_unix_nano=start,
        end_time_unix_nano=draw(st.integers(start, 2**64 - 1)),
        attributes=draw(attributes),
        events=draw(few(events, 1)),
        links=draw(few(links, 1)),
        dropped_attributes_count=draw(uint32),
        dropped_events_count=draw(uint32),
        dropped_links_count=draw(uint32),
        flags=draw(uint32),
    )
    if draw(st.booleans()):
        span.status.CopyFrom(draw(statuses))
    return span


def _broken(field: str, *bad: object) -> st.SearchStrategy[tuple[str, object]]:
    return st.tuples(st.just(field), st.sampled_from(bad))


@st.composite
def bad_spans(draw: st.DrawFn) -> Span:
    """A span that breaks at least one rule at NOW_NS."""
    span = draw(spans())
    field, value = draw(
        st.one_of(
            _broken("trace_id", b"", b"\x01", bytes(16), b"\x01" * 15, b"\x01" * 17),
            _broken("span_id", b"", b"\x01", bytes(8), b"\x01" * 7, b"\x01" * 9),
            _broken("parent_span_id", b"\x01", b"\x01" * 7, b"\x01" * 16),
            _broken("start_time_unix_nano", 0, NOW_NS + 2 * 86400 * 10**9, 2**64 - 1),
            _broken("end_time_unix_nano", 0, span.start_time_unix_nano - 1),
            _broken("link", Span.Link(), Span.Link(trace_id=b"\x01" * 16, span_id=bytes(8))),
        )
    )
    if field == "link":
        span.links.append(value)
    else:
        setattr(span, field, value)
        if field == "start_time_unix_nano":
            span.end_time_unix_nano = 2**64 - 1
    return span


def requests(
    span: st.SearchStrategy[Span] | None = None,
) -> st.SearchStrategy[ExportTraceServiceRequest]:
    scopes = st.builds(
        InstrumentationScope,
        name=text,
        version=text,
        attributes=attributes,
        dropped_attributes_count=uint32,
    )
    scope_spans = st.builds(
        ScopeSpans,
        scope=st.none() | scopes,
        spans=few(spans() if span is None else span, 3),
        schema_url=text,
    )
    entity_refs = st.builds(
        EntityRef, schema_url=text, type=text, id_keys=few(text), description_keys=few(text)
    )
    resources = st.builds(
        Resource,
        attributes=attributes,
        dropped_attributes_count=uint32,
        entity_refs=few(entity_refs, 1),
    )
    resource_spans = st.builds(
        ResourceSpans,
        resource=st.none() | resources,
        scope_spans=few(scope_spans),
        schema_url=text,
    )
    return st.builds(ExportTraceServiceRequest, resource_spans=few(resource_spans))


def spans_of(request: ExportTraceServiceRequest) -> list[Span]:
    return [
        span
        for resource_spans in request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]
