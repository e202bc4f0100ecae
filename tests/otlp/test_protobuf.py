from __future__ import annotations

import os
from contextlib import suppress
from copy import deepcopy

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.errors import Cause, Refused
from gateway.otlp.decode import Decoded, Media, decode
from gateway.otlp.fields import delimited
from gateway.otlp.rules import DAY_NS, REMEDIES
from tests.kit.spans import make_request, make_span
from tests.otlp.strategies import NOW_NS, bad_spans, requests, spans, spans_of


def read(body: bytes, *, max_spans: int = 10_000, max_bytes: int = 3 * 2**20) -> Decoded:
    return decode(body, Media.PROTOBUF, now_ns=NOW_NS, max_spans=max_spans, max_bytes=max_bytes)


PADDING = delimited(b"\xa2\x06", bytes(3000))
"""An unknown field that makes a request too large for the proof by objects."""


def read_both(body: bytes) -> Decoded:
    """Read as a small request and as a large one, which must not differ."""
    small, large = read(body), read(body + PADDING)
    assert large[1:] == small[1:]
    assert [count for _, count in large.payloads] == [count for _, count in small.payloads]
    return small


def read_span(**fields: object) -> Decoded:
    fields = {"start_time_unix_nano": NOW_NS, "end_time_unix_nano": NOW_NS} | fields
    return read_both(make_request(make_span(**fields)).SerializeToString())


def parse(payload: bytes) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest.FromString(payload)


def joined(decoded: Decoded) -> ExportTraceServiceRequest:
    return parse(b"".join(payload for payload, _ in decoded.payloads))


@settings(max_examples=40)
@given(requests())
def test_good_request_passes_as_the_very_same_bytes(request_):
    body = request_.SerializeToString()
    count = len(spans_of(request_))
    for sent in (body, body + PADDING):
        decoded = read(sent)
        assert decoded == Decoded(((sent, count),) if count else (), count)
        assert all(payload is sent for payload, _ in decoded.payloads)


@settings(max_examples=40)
@given(requests(spans() | bad_spans()))
def test_cutting_keeps_exactly_the_good_spans_and_all_else(request_):
    decoded = read(request_.SerializeToString())
    expected = deepcopy(request_)
    for resource_spans in expected.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            good = [
                span
                for span in scope_spans.spans
                if not read_both(make_request(span).SerializeToString()).rejected
            ]
            cut = len(good) < len(scope_spans.spans)
            del scope_spans.spans[:]
            scope_spans.spans.extend(good)
            scope_spans.schema_url += "CUT" if cut and not good else ""
        had = bool(resource_spans.scope_spans)
        kept = [s for s in resource_spans.scope_spans if not s.schema_url.endswith("CUT")]
        del resource_spans.scope_spans[:]
        resource_spans.scope_spans.extend(kept)
        resource_spans.schema_url += "CUT" if had and not kept else ""
    kept = [r for r in expected.resource_spans if not r.schema_url.endswith("CUT")]
    del expected.resource_spans[:]
    expected.resource_spans.extend(kept)
    count = len(spans_of(expected))
    assert decoded.accepted == count
    assert sum(decoded.rejected.values()) == len(spans_of(request_)) - count
    assert decoded.rejected.keys() <= REMEDIES.keys()
    assert bool(decoded.message) == bool(decoded.rejected)
    if count:
        assert joined(decoded) == expected
    else:
        assert decoded.payloads == ()


@given(bad_spans())
def test_each_bad_span_is_refused(span):
    decoded = read_both(make_request(span, span).SerializeToString())
    assert decoded.accepted == 0
    assert sum(decoded.rejected.values()) == 2
    assert decoded.payloads == ()


@settings(max_examples=40)
@given(requests(spans() | bad_spans()), st.integers(1, 5), st.integers(1, 2000))
def test_split_pieces_join_to_the_same_spans_under_the_same_resources(request_, most, size):
    whole, split = (
        read(request_.SerializeToString()),
        read(request_.SerializeToString(), max_spans=most, max_bytes=size),
    )
    assert (split.accepted, split.rejected) == (whole.accepted, whole.rejected)
    assert split.message == whole.message
    assert placed(joined(split)) == placed(joined(whole))
    for payload, count in split.payloads:
        assert len(spans_of(parse(payload))) == count <= most
        assert len(payload) <= size or count == 1


def placed(request_: ExportTraceServiceRequest) -> list[tuple[bytes, ...]]:
    """Each span with all that stands around it."""
    return [
        (
            span.SerializeToString(deterministic=True),
            scope_spans.scope.SerializeToString(deterministic=True),
            scope_spans.schema_url.encode(),
            resource_spans.resource.SerializeToString(deterministic=True),
            resource_spans.schema_url.encode(),
        )
        for resource_spans in request_.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


@given(st.binary(max_size=200))
@example(b"\x0a\x02\x12\x00")
def test_arbitrary_bytes_are_refused_or_decoded(body):
    read_or_refusal(body)


@settings(max_examples=40)
@given(requests(), st.data())
def test_damaged_requests_are_refused_or_decoded(request_, data):
    body = bytearray(request_.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        if body:
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    for limit in (10_000, 1):
        read_or_refusal(bytes(body), max_spans=limit)


def read_or_refusal(body: bytes, *, max_spans: int = 10_000) -> None:
    with suppress(Refused):
        decoded = read(body, max_spans=max_spans)
        assert decoded.accepted == sum(count for _, count in decoded.payloads)


def test_request_truncated_at_each_byte_is_malformed_or_shorter():
    body = make_request(*(make_span() for _ in range(3))).SerializeToString()
    for size in range(1, len(body)):
        with pytest.raises(Refused) as refusal:
            read(body[:size])
        assert refusal.value.cause is Cause.MALFORMED
        assert "sent whole" in refusal.value.message


MALFORMED = {
    "wrong wire type of resource_spans": b"\x08\x01",
    "wrong wire type of scope_spans": b"\x0a\x02\x10\x01",
    "wrong wire type of spans": delimited(b"\x0a", delimited(b"\x12", b"\x10\x01")),
    "group for resource_spans": b"\x0b\x0c",
    "group that is not closed": b"\x6b",
    "group that was not open": b"\x0c",
    "field number 0": b"\x02\x00",
    "tag of ten bytes": b"\x8a" + b"\x80" * 8 + b"\x00\x00",
    "varint of eleven bytes": b"\x40" + b"\xff" * 10 + b"\x01",
    "length of ten bytes": b"\x0a" + b"\xff" * 9 + b"\x01",
    "length beyond the end": b"\x0a\x05\x12",
    "wire type 6": b"\x0e",
    "text": b"hello, world",
    "JSON": b'{"resourceSpans":[]}',
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
    "damaged span": delimited(b"\x0a", delimited(b"\x12", delimited(b"\x12", b"\x0a\x10abc"))),
    "damaged attribute": delimited(
        b"\x0a", delimited(b"\x12", delimited(b"\x12", b"\x4a\x03\x0a\x05k"))
    ),
    "damaged resource without spans": delimited(b"\x0a", delimited(b"\x0a", b"\x0a\x05")),
    "scope_spans of Go's deprecated field": delimited(b"\x0a", b"\xc2\x3e\x00"),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_protobuf_is_refused(body):
    with pytest.raises(Refused) as refusal:
        read(body)
    assert refusal.value.cause is Cause.MALFORMED


WRONG = {
    "name as a number": b"\x28\x01",
    "name as a group": b"\x2b\x2c",
    "unknown group": b"\xa3\x06\x08\x01\xa4\x06",
    "attributes as a number": b"\x48\x01",
    "key as a number": b"\x4a\x02\x08\x01",
    "value as a number": b"\x4a\x02\x10\x01",
    "string value as a number": b"\x4a\x04\x12\x02\x08\x01",
    "bool value as a string": b"\x4a\x04\x12\x02\x12\x00",
    "element of an array as a number": b"\x4a\x06\x12\x04\x2a\x02\x08\x01",
    "event's time as a number": b"\x5a\x02\x08\x01",
    "status code as a string": b"\x7a\x02\x1a\x00",
    "flags as a number": b"\x80\x01\x01",
}


@pytest.mark.parametrize("field", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("padding", [b"", PADDING], ids=["small", "large"])
def test_field_of_a_wrong_wire_type_is_malformed(field, padding):
    """Protobuf's own parser takes them for unknown fields; Tempo would refuse the whole batch."""
    span = make_span(start_time_unix_nano=1).SerializeToString()
    body = delimited(b"\x0a", delimited(b"\x12", delimited(b"\x12", span + field)))
    with pytest.raises(Refused, match=r"wire type|group") as refusal:
        read(body + padding)
    assert refusal.value.cause is Cause.MALFORMED


def test_wrong_wire_type_in_a_deep_value_is_malformed():
    value = b"\x0a\x02\x08\x01"  # an element whose string is a number
    for _ in range(8):
        value = delimited(b"\x0a", delimited(b"\x2a", value))
    attribute = delimited(b"\x12", delimited(b"\x2a", value))
    span = make_span(start_time_unix_nano=1).SerializeToString() + delimited(b"\x4a", attribute)
    with pytest.raises(Refused, match="string_value has wire type 0"):
        read_both(delimited(b"\x0a", delimited(b"\x12", delimited(b"\x12", span))))


def test_nothing_is_a_success():
    assert read(b"") == Decoded()
    assert read(make_request().SerializeToString()) == Decoded()
    assert read(b"\x0a\x00") == Decoded()


def test_unknown_fields_are_passed_on():
    newer = b"\xa2\x06\x01x"
    span = make_span(start_time_unix_nano=1).SerializeToString() + newer
    body = delimited(b"\x0a", delimited(b"\x12", delimited(b"\x12", span) + newer) + newer) + newer
    assert read_both(body).payloads == ((body, 1),)


def test_text_that_is_not_utf8_is_passed_on():
    body = make_request(make_span("name", start_time_unix_nano=1)).SerializeToString()
    body = body.replace(b"name", b"na\xffe").replace(b"GET", b"G\xffT")
    assert read(body).payloads == ((body, 1),)


def test_name_that_is_not_utf8_is_told_with_a_replacement():
    body = make_request(make_span("name", span_id=bytes(8))).SerializeToString()
    assert "na\N{REPLACEMENT CHARACTER}e" in read(body.replace(b"name", b"na\xffe")).message


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("trace_id_length", {"trace_id": b"\x01" * 8}),
        ("trace_id_zero", {"trace_id": bytes(16)}),
        ("span_id_length", {"span_id": b""}),
        ("span_id_zero", {"span_id": bytes(8)}),
        ("parent_span_id_length", {"parent_span_id": b"\x01" * 16}),
        ("start_zero", {"start_time_unix_nano": 0}),
        (
            "start_in_future",
            {
                "start_time_unix_nano": NOW_NS + DAY_NS + 1,
                "end_time_unix_nano": NOW_NS + DAY_NS + 1,
            },
        ),
        ("end_before_start", {"end_time_unix_nano": NOW_NS - 1}),
        ("link_trace_id", {"links": [{"trace_id": bytes(16), "span_id": b"\x01" * 8}]}),
        ("link_span_id", {"links": [{"trace_id": b"\x01" * 16}]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_reason_names_the_rule_and_message_the_remedy(reason, fields):
    decoded = read_span(**fields)
    assert decoded.rejected == {reason: 1}
    assert REMEDIES[reason] in decoded.message


@pytest.mark.parametrize(
    "fields",
    [
        {"start_time_unix_nano": NOW_NS + DAY_NS, "end_time_unix_nano": NOW_NS + DAY_NS},
        {"parent_span_id": bytes(8)},
        {"trace_id": bytes(8) + b"\x01" * 8},
        {"start_time_unix_nano": 1, "end_time_unix_nano": 2**64 - 1},
    ],
    ids=["a day ahead", "zero parent", "64-bit trace id", "long ago"],
)
def test_limits_of_the_rules_are_taken(fields):
    assert read_span(**fields).accepted == 1


def test_zero_start_that_is_written_is_refused():
    span = make_span().SerializeToString()
    fields = b"\x39" + bytes(8) + b"\x41" + bytes(8)
    body = delimited(b"\x0a", delimited(b"\x12", delimited(b"\x12", span[:28] + fields)))
    assert read_both(body).rejected == {"start_zero": 1}


def test_message_names_the_first_offender_of_the_whole_request():
    good = {"start_time_unix_nano": 1}
    body = make_request(
        make_span(**good),
        make_span("bad one", trace_id=b"\x00" * 15 + b"\x07", span_id=bytes(8), **good),
        make_span(**good),
        make_span("worse", span_id=b"\x01", **good),
    ).SerializeToString()
    for most in (100, 1):
        decoded = read(body, max_spans=most)
        assert decoded.rejected == {"span_id_zero": 1, "span_id_length": 1}
        assert decoded.message == (
            "2 of 4 spans refused: span_id_zero 1, span_id_length 1. First span 1 ('bad one'): "
            + REMEDIES["span_id_zero"]
        )
        assert decoded.trace_id == "0" * 31 + "7"


def test_fields_that_occur_twice_are_judged_by_the_last():
    """As every parser reads them; the proof for clean requests must not be fooled."""
    good = make_span(start_time_unix_nano=1).SerializeToString()
    zero_trace_id = b"\x0a\x10" + bytes(16)
    for span, accepted in ((good + zero_trace_id, 0), (zero_trace_id + good, 1)):
        body = delimited(b"\x0a", delimited(b"\x12", delimited(b"\x12", span)))
        assert read_both(body).accepted == accepted
    zero_span_id = b"\x12\x08" + bytes(8)
    looks_like_span_id = b"\x2a\x08checkout"
    pairs = [
        (good[:28] + good, good[28:]),
        (good + zero_span_id, good[:18] + good[28:]),
        (good + b"\x12\x08" + b"i" * 8, good[:18] + looks_like_span_id + good[28:]),
        (good + zero_span_id, good),
    ]
    for accepted, pair in zip((1, 0, 1, 1), pairs, strict=True):
        for order in (pair, pair[::-1]):
            two = b"".join(delimited(b"\x12", span) for span in order)
            assert read_both(delimited(b"\x0a", delimited(b"\x12", two))).accepted == accepted


def test_small_request_with_too_many_spans_is_split():
    span = make_span(start_time_unix_nano=1, attributes=[])
    body = make_request(*[span] * 3).SerializeToString()
    assert len(body) < 2048
    assert [count for _, count in read(body, max_spans=2).payloads] == [2, 1]


def test_flood_of_empty_resources_is_refused_where_it_is_walked():
    with pytest.raises(Refused, match="too small to be spans"):
        read(b"\x0a\x00" * 2_500_000)


@pytest.mark.parametrize("unit", [b"\x12\x00", b"\x12\x02\x0a\x00"], ids=["empty", "nearly empty"])
@pytest.mark.parametrize("size", [400_000, 5_000_000], ids=["small", "split"])
def test_flood_of_tiny_spans_is_refused(unit, size):
    body = delimited(b"\x0a", delimited(b"\x12", unit * (size // len(unit))))
    with pytest.raises(Refused, match="too small to be spans") as refusal:
        read(body)
    assert refusal.value.cause is Cause.MALFORMED


def test_flood_of_fields_in_a_huge_span_is_refused():
    span = delimited(b"\x12", b"\x6a\x00" * 2_500_000)
    with pytest.raises(Refused, match="more than 131072 fields"):
        read(delimited(b"\x0a", delimited(b"\x12", span)))


def test_single_span_above_the_limits_stays_alone():
    big = make_span("big", start_time_unix_nano=1, trace_state="x" * 5 * 2**20)
    small = make_span("small", start_time_unix_nano=1)
    body = make_request(small, big, small).SerializeToString()
    decoded = read(body)
    assert [count for _, count in decoded.payloads] == [1, 1, 1]
    assert joined(decoded).resource_spans[1].scope_spans[0].spans[0] == big


def test_request_above_4_mib_is_split_whatever_the_limit():
    """So that the views of a hostile one stay small."""
    span = make_span(start_time_unix_nano=1, trace_state="x" * 2**20)
    decoded = read(make_request(*[span] * 5).SerializeToString(), max_bytes=2**30)
    assert [count for _, count in decoded.payloads] == [3, 2]


def test_large_resource_is_not_multiplied_by_splitting():
    request_ = make_request(*(make_span(start_time_unix_nano=1) for _ in range(100)))
    request_.resource_spans[0].resource.attributes[0].value.string_value = "x" * 2**20
    body = request_.SerializeToString()
    assert read(body).accepted == 100
    with pytest.raises(Refused, match="fewer resource attributes") as refusal:
        read(body, max_spans=1)
    assert refusal.value.cause is Cause.TOO_LARGE


def test_ids_that_only_look_zero_are_taken():
    """Eight zero bytes behind what looks like the tag of a span id, but is part of a trace id."""
    trace_id = b"\x12\x08" + bytes(8) + os.urandom(6)
    assert read_span(trace_id=trace_id).accepted == 1
