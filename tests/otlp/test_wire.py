from __future__ import annotations

import os

import pytest

from gateway.errors import Cause, Refused
from gateway.otlp.wire import split, trace_ids, without
from tests.kit.spans import make_payload, make_request, make_span
from tests.otlp.test_protobuf import parse


def test_trace_ids_are_different_and_limited():
    ids = [os.urandom(16) for _ in range(5)]
    spans = [make_span(trace_id=trace_id) for trace_id in ids for _ in range(2)]
    payload = make_request(*spans).SerializeToString()
    assert trace_ids(payload, 3) == [trace_id.hex() for trace_id in ids[:3]]
    assert trace_ids(payload * 2, 100) == [trace_id.hex() for trace_id in ids]


def test_trace_ids_of_damaged_payloads_are_those_that_can_be_read():
    assert trace_ids(b"rubbish", 5) == []
    assert trace_ids(b"", 5) == []


def test_split_by_spans_alone():
    payload = make_payload(10)
    pieces = list(split(payload, max_spans=4))
    assert [spans for _, spans in pieces] == [4, 4, 2]
    assert parse(b"".join(piece for piece, _ in pieces)).resource_spans[2].scope_spans[0].scope.name


def test_split_of_joined_payloads_opens_each_resource_once():
    payload = b"".join(make_payload(3, service=name) for name in "abc")
    first, second = (parse(piece) for piece, _ in split(payload, max_spans=5))
    names = [r.resource.attributes[0].value.string_value for r in first.resource_spans]
    assert names == ["a", "b"]
    names = [r.resource.attributes[0].value.string_value for r in second.resource_spans]
    assert names == ["b", "c"]


def test_split_keeps_fields_that_follow_the_spans():
    request = make_request(make_span(), make_span())
    request.resource_spans[0].schema_url = "https://example.com/resource"
    request.resource_spans[0].scope_spans[0].schema_url = "https://example.com/scope"
    for piece, _ in split(request.SerializeToString(), max_spans=1):
        (resource_spans,) = parse(piece).resource_spans
        assert resource_spans.schema_url == "https://example.com/resource"
        assert resource_spans.scope_spans[0].schema_url == "https://example.com/scope"


def test_split_of_malformed_payload_is_refused():
    with pytest.raises(Refused) as caught:
        list(split(make_payload()[:-1], max_spans=1))
    assert caught.value.cause is Cause.MALFORMED


def test_without_counts_over_resources_and_scopes():
    request = make_request(make_span("0"), make_span("1"))
    request.MergeFrom(make_request(make_span("2")))
    request.MergeFrom(make_request(make_span("3"), make_span("4")))
    left = parse(without(request.SerializeToString(), {1, 2, 3}))
    names = [[s.name for s in r.scope_spans[0].spans] for r in left.resource_spans]
    assert names == [["0"], ["4"]]


def test_without_the_last_span_nothing_is_left():
    assert without(make_payload(2), {0, 1}) == b""
