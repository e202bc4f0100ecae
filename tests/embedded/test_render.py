from __future__ import annotations

import json
import math

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue

from gateway.embedded.decode import decode
from gateway.embedded.render import trace_by_id_response, trace_json, trace_message
from tests.kit.spans import attribute, make_request, make_span


def parts(request):
    """As the store would give them back."""
    decoded = decode(request.SerializeToString())
    by_origin = {index: [] for index in range(len(decoded.origins))}
    for trace in decoded.traces.values():
        for span in trace.spans:
            by_origin[span.origin].append(span.body)
    return [(decoded.origins[index], bodies) for index, bodies in by_origin.items()]


def rendered(request):
    return trace_json(trace_message(parts(request)), "batches")


def span_json(**fields):
    (batch,) = rendered(make_request(make_span(**fields)))["batches"]
    return batch["scopeSpans"][0]["spans"][0]


def test_scopes_of_one_resource_are_put_together():
    request = make_request(make_span("one"), scope="a")
    request.resource_spans[0].scope_spans.add(spans=[make_span("two")]).scope.name = "b"
    request.MergeFrom(make_request(make_span("three"), service="other", scope="a"))
    batches = rendered(request)["batches"]
    assert [[each["scope"]["name"] for each in batch["scopeSpans"]] for batch in batches] == [
        ["a", "b"],
        ["a"],
    ]


def test_nothing_is_no_list():
    assert trace_json(trace_message([]), "batches") == {}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (AnyValue(string_value=""), {"stringValue": ""}),
        (AnyValue(bool_value=False), {"boolValue": False}),
        (AnyValue(int_value=2**63 - 1), {"intValue": "9223372036854775807"}),
        (AnyValue(double_value=1.5), {"doubleValue": 1.5}),
        (AnyValue(double_value=math.nan), {"doubleValue": "NaN"}),
        (AnyValue(double_value=-math.inf), {"doubleValue": "-Infinity"}),
        (AnyValue(bytes_value=b"\x00"), {"bytesValue": "AA=="}),
        (AnyValue(array_value=ArrayValue()), {"arrayValue": {}}),
        (AnyValue(), {}),
    ],
)
def test_attribute_values(value, expected):
    rendered = span_json(attributes=[KeyValue(key="k", value=value)])
    assert rendered["attributes"] == [{"key": "k", "value": expected}]
    json.dumps(rendered, allow_nan=False)


def test_counts_flags_and_unknown_enums():
    rendered = span_json(
        flags=257, dropped_attributes_count=1, dropped_events_count=2, dropped_links_count=3, kind=9
    )
    assert rendered["flags"] == 257
    assert rendered["droppedAttributesCount"] == 1
    assert rendered["droppedEventsCount"] == 2
    assert rendered["droppedLinksCount"] == 3
    assert rendered["kind"] == 9


@pytest.mark.parametrize("size", [1, 100, 20_000])
def test_the_protobuf_of_version_2_holds_the_trace_in_field_1(size):
    trace = trace_message(parts(make_request(make_span(attributes=[attribute("pad", "x" * size)]))))
    body = trace.SerializeToString()
    answer = trace_by_id_response(trace)
    assert answer.startswith(b"\x0a")
    assert answer.endswith(body + b"\x12\x00")
    length = answer[1 : -len(body) - 2]
    assert sum((byte & 0x7F) << 7 * index for index, byte in enumerate(length)) == len(body)
    assert [byte >> 7 for byte in length] == [1] * (len(length) - 1) + [0]
