from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.errors import Cause, Refused
from gateway.otlp.decode import Decoded, Media, decode
from gateway.otlp.depth import MAX_DEPTH
from tests.otlp.strategies import NOW_NS, bad_spans, requests, spans, spans_of
from tests.otlp.test_depth import depth_of
from tests.otlp.test_protobuf import placed

IDS = {"traceId", "spanId", "parentSpanId"}


def read(
    document: Any, *, max_spans: int = 10_000, max_bytes: int = 3 * 2**20, media: Media = Media.JSON
) -> Decoded:
    """Documents are read as JavaScript writes them and as Python does, with blanks."""
    limits = {"now_ns": NOW_NS, "max_spans": max_spans, "max_bytes": max_bytes}
    if isinstance(document, bytes):
        return decode(document, media, **limits)
    decoded = decode(json.dumps(document).encode(), media, **limits)
    compact = json.dumps(document, separators=(",", ":")).encode()
    assert decode(compact, media, **limits) == decoded
    return decoded


def parse(decoded: Decoded) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest.FromString(b"".join(p for p, _ in decoded.payloads))


def span(**fields: Any) -> dict[str, Any]:
    return {
        "traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": "eee19b7ec3c1b174",
        "name": "checkout",
        "startTimeUnixNano": "1544712660000000000",
        "endTimeUnixNano": "1544712661000000000",
    } | fields


def document(*listed: Any) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(listed)}]}]}


def read_one(**fields: Any) -> tuple[Span, Decoded]:
    decoded = read(document(span(**fields)))
    (found,) = spans_of(parse(decoded))
    return found, decoded


def read_value(value: Any) -> Any:
    """How an attribute's value is read."""
    found, _ = read_one(attributes=[{"key": "k", "value": value}])
    return found.attributes[0].value


def refusal(body: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        read(body)
    if not isinstance(body, bytes):
        with pytest.raises(Refused) as compact:
            read(json.dumps(body, separators=(",", ":")).encode())
        assert compact.value.message == caught.value.message
    return caught.value


def to_json(request: ExportTraceServiceRequest, **options: Any) -> dict[str, Any]:
    """As protobuf's own library writes it, with OTLP's hex ids."""
    return _with_hex_ids(json_format.MessageToDict(request, **options))


def _with_hex_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: base64.b64decode(item).hex() if key in IDS else _with_hex_ids(item)
            for key, item in value.items()
        }
    return [_with_hex_ids(item) for item in value] if isinstance(value, list) else value


@settings(max_examples=40)
@given(requests(), st.booleans(), st.booleans())
def test_agrees_with_protobufs_own_json(request_, integers, spaced):
    written = to_json(request_, use_integers_for_enums=integers)
    separators = (" , ", " : ") if spaced else (",", ":")
    decoded = read(json.dumps(written, separators=separators).encode())
    assert decoded.accepted == len(spans_of(request_))
    assert not decoded.rejected
    assert integers <= (not decoded.repairs)
    # NaN is not equal to itself, so the comparison is of bytes.
    assert placed(parse(decoded)) == placed(request_)


@settings(max_examples=40)
@given(requests(spans() | bad_spans()), st.integers(1, 5), st.integers(1, 2000))
def test_judges_as_protobuf_does(request_, most, size):
    body = request_.SerializeToString()
    limits = {"max_spans": most, "max_bytes": size}
    by_json = read(to_json(request_, use_integers_for_enums=True), **limits)
    by_protobuf = read(body, media=Media.PROTOBUF, **limits)
    assert by_json.rejected == by_protobuf.rejected
    assert by_json.message == by_protobuf.message
    assert by_json.trace_id == by_protobuf.trace_id
    assert placed(parse(by_json)) == placed(parse(by_protobuf))
    for payload, count in by_json.payloads:
        assert len(spans_of(ExportTraceServiceRequest.FromString(payload))) == count <= most
        assert len(payload) <= size or count == 1


@given(st.binary(max_size=60))
@example(b"\xef\xbb\xbf{}")
def test_arbitrary_bytes_are_refused_or_decoded(body):
    with suppress(Refused):
        read(body)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["0" * 32, "1" * 16, "NaN", "-1", "99999999999999999999"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    "traceId",
                    "spanId",
                    "startTimeUnixNano",
                    "endTimeUnixNano",
                    "flags",
                    "kind",
                    "status",
                    "code",
                    "events",
                    "links",
                    "attributes",
                    "key",
                    "value",
                    "intValue",
                    "stringValue",
                    "arrayValue",
                    "kvlistValue",
                    "values",
                    "bytesValue",
                    "doubleValue",
                    "boolValue",
                    "low",
                    "high",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=200)
@given(anything, st.sampled_from(["spans", "span", "value", "resource", "request"]))
def test_any_json_at_any_place_is_refused_or_decoded(value, place):
    body = {
        "spans": document(value),
        "span": document(span(**value) if isinstance(value, dict) else value),
        "value": document(span(attributes=[{"key": "k", "value": value}])),
        "resource": {"resourceSpans": [{"resource": value, "scopeSpans": [{"spans": [span()]}]}]},
        "request": {"resourceSpans": value},
    }[place]
    with suppress(Refused):
        decoded = read(body)
        assert len(spans_of(parse(decoded))) == decoded.accepted


def test_example_of_the_specification():
    """The shape of opentelemetry-proto's examples/trace.json."""
    decoded = read(
        {
            "resourceSpans": [
                {
                    "resource": {
                        "attributes": [
                            {"key": "service.name", "value": {"stringValue": "my.service"}}
                        ]
                    },
                    "scopeSpans": [
                        {
                            "scope": {"name": "my.library", "version": "1.0.0", "attributes": []},
                            "spans": [
                                {
                                    "traceId": "5B8EFFF798038103D269B633813FC60C",
                                    "spanId": "EEE19B7EC3C1B174",
                                    "parentSpanId": "EEE19B7EC3C1B173",
                                    "name": "I'm a server span",
                                    "startTimeUnixNano": "1544712660000000000",
                                    "endTimeUnixNano": "1544712661000000000",
                                    "kind": 2,
                                    "attributes": [
                                        {
                                            "key": "my.span.attr",
                                            "value": {"stringValue": "some value"},
                                        }
                                    ],
                                }
                            ],
                        }
                    ],
                }
            ]
        }
    )
    assert (decoded.accepted, decoded.message, decoded.repairs) == (1, "", {})
    (found,) = spans_of(parse(decoded))
    assert found.trace_id.hex() == "5b8efff798038103d269b633813fc60c"
    assert found.parent_span_id.hex() == "eee19b7ec3c1b173"
    assert found.kind == Span.SPAN_KIND_SERVER


def test_base64_ids_of_the_exact_length_are_repaired():
    found, decoded = read_one(
        traceId=base64.b64encode(b"\x01" * 16).decode(),
        spanId=base64.b64encode(b"\x02" * 8).decode(),
        parentSpanId="",
        links=[{"traceId": base64.b64encode(b"\x03" * 16).decode(), "spanId": "04" * 8}],
    )
    assert (found.trace_id, found.span_id) == (b"\x01" * 16, b"\x02" * 8)
    assert (found.parent_span_id, found.links[0].trace_id) == (b"", b"\x03" * 16)
    assert decoded.repairs == {"base64_id": 3}


@pytest.mark.parametrize(
    "text", ["xyz", "5b8e", "0" * 31, "5b8efff798038103 d269b633813fc60c", "é" * 32, "5b8efff7" * 5]
)
def test_other_ids_are_refused_by_the_rule(text):
    decoded = read(document(span(traceId=text), span(parentSpanId=text), span()))
    assert decoded.rejected == {"trace_id_length": 1, "parent_span_id_length": 1}
    assert "32 hex digits" in decoded.message


@pytest.mark.parametrize(
    "value",
    [
        1544712660000000001,
        "1544712660000000001",
        {"low": 1544712660000000001 & 0xFFFFFFFF, "high": 1544712660000000001 >> 32},
        {"low": (1544712660000000001 & 0xFFFFFFFF) - 2**32, "high": 1544712660000000001 >> 32},
    ],
    ids=["number", "string", "halves", "signed halves"],
)
def test_times_in_every_known_form(value):
    found, decoded = read_one(startTimeUnixNano=value)
    assert found.start_time_unix_nano == 1544712660000000001
    assert decoded.repairs == ({"integer_halves": 1} if isinstance(value, dict) else {})


def test_time_as_a_number_with_exponent():
    body = json.dumps(document(span())).replace('"1544712660000000000"', "1.5e18").encode()
    (found,) = spans_of(parse(read(body)))
    assert found.start_time_unix_nano == 1_500_000_000_000_000_000


def test_enums_by_name_are_taken_and_counted():
    found, decoded = read_one(kind="SPAN_KIND_CLIENT", status={"code": "STATUS_CODE_ERROR"})
    assert (found.kind, found.status.code) == (3, 2)
    assert decoded.repairs == {"enum_name": 2}
    found, decoded = read_one(kind="CLIENT", status={"code": 7})
    assert (found.kind, found.status.code) == (0, 7)
    assert decoded.repairs == {"enum_unknown": 1}


def test_halves_in_attributes_are_counted_each_time():
    value = {"intValue": {"low": -1, "high": -1}}
    attributes = [{"key": "k", "value": value}, {"key": "k", "value": value}]
    decoded = read(document(span(attributes=attributes), span(attributes=attributes)))
    assert decoded.repairs == {"integer_halves": 4}
    assert spans_of(parse(decoded))[0].attributes[1].value.int_value == -1


@pytest.mark.parametrize(
    ("value", "field", "expected"),
    [
        ({"stringValue": "x"}, "string_value", "x"),
        ({"stringValue": ""}, "string_value", ""),
        ({"boolValue": False}, "bool_value", False),
        ({"intValue": "-9223372036854775808"}, "int_value", -(2**63)),
        ({"intValue": 9223372036854775807}, "int_value", 2**63 - 1),
        ({"intValue": 3.0}, "int_value", 3),
        ({"doubleValue": 1}, "double_value", 1.0),
        ({"doubleValue": "-1.5e3"}, "double_value", -1500.0),
        ({"doubleValue": "Infinity"}, "double_value", float("inf")),
        ({"doubleValue": "-Infinity"}, "double_value", float("-inf")),
        ({"bytesValue": "_-8"}, "bytes_value", b"\xff\xef"),
        ({"bytesValue": "/+8="}, "bytes_value", b"\xff\xef"),
        ({"stringValue": None, "intValue": 1}, "int_value", 1),
    ],
)
def test_values(value, field, expected):
    found = read_value(value)
    assert found.WhichOneof("value") == field
    assert getattr(found, field) == expected


def test_nan_is_taken():
    number = read_value({"doubleValue": "NaN"}).double_value
    assert number != number  # noqa: PLR0124


def test_nested_values():
    found = read_value(
        {"arrayValue": {"values": [{"kvlistValue": {"values": [{"key": "a"}]}}, {}]}}
    )
    assert found.array_value.values[0].kvlist_value.values[0].key == "a"
    assert found.array_value.values[1].WhichOneof("value") is None
    assert read_value({"arrayValue": {}}).WhichOneof("value") == "array_value"
    assert read_value({}).WhichOneof("value") is None


def test_strings_that_look_like_the_seam_between_attributes():
    """Attributes are told apart by a cut at ``}},{``, which a string may hold too."""
    texts = ['}},{"', 'x"}},{"key":"b","value":{"stringValue":"y', "}},{", '"}},{"', "\\"]
    attributes = [{"key": text, "value": {"stringValue": text}} for text in texts]
    for separators in ((",", ":"), (", ", ": ")):
        body = json.dumps(document(span(attributes=attributes)), separators=separators)
        (found,) = spans_of(parse(read(body.encode())))
        assert [a.key for a in found.attributes] == texts
        assert [a.value.string_value for a in found.attributes] == texts


def test_null_is_as_absent_at_each_place():
    full = to_json(
        ExportTraceServiceRequest(
            resource_spans=[
                {
                    "resource": {"attributes": [{"key": "k", "value": {"int_value": 1}}]},
                    "schema_url": "s",
                    "scope_spans": [
                        {
                            "scope": {"name": "n", "version": "v"},
                            "schema_url": "s",
                            "spans": [
                                {
                                    "trace_id": b"\x01" * 16,
                                    "span_id": b"\x01" * 8,
                                    "parent_span_id": b"\x01" * 8,
                                    "trace_state": "t",
                                    "name": "n",
                                    "kind": 2,
                                    "flags": 1,
                                    "start_time_unix_nano": 1,
                                    "end_time_unix_nano": 2,
                                    "attributes": [{"key": "k", "value": {"int_value": 1}}],
                                    "dropped_attributes_count": 1,
                                    "events": [{"name": "e", "time_unix_nano": 1}],
                                    "links": [{"trace_id": b"\x01" * 16, "span_id": b"\x01" * 8}],
                                    "status": {"code": 1, "message": "m"},
                                }
                            ],
                        }
                    ],
                }
            ]
        )
    )
    assert read(full).accepted == 1
    places = list(_members(full))
    assert len(places) > 25
    for path in places:
        changed = json.loads(json.dumps(full))
        holder = changed
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = None
        absent = json.loads(json.dumps(changed))
        holder = absent
        for step in path[:-1]:
            holder = holder[step]
        del holder[path[-1]]
        assert read(changed) == read(absent)


def _members(value: Any) -> Any:
    """The paths to all members of objects."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (key,)
            yield from ((key, *path) for path in _members(item))
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from ((index, *path) for path in _members(item))


def test_unknown_keys_are_ignored():
    found, decoded = read_one(
        trace_id="x", colour={"a": [1, {}]}, status={"code": 1, "deep": [[[]]]}, events=[{"x": 1}]
    )
    assert found.name == "checkout"
    assert not decoded.repairs


def test_document_in_snake_case_is_repaired():
    written = to_json(
        ExportTraceServiceRequest(
            resource_spans=[
                {
                    "scope_spans": [
                        {
                            "spans": [
                                {
                                    "trace_id": b"\x01" * 16,
                                    "span_id": b"\x01" * 8,
                                    "start_time_unix_nano": 1,
                                    "end_time_unix_nano": 2,
                                    "attributes": [
                                        {"key": "a_b", "value": {"string_value": "c_d"}}
                                    ],
                                }
                            ]
                        }
                    ]
                }
            ]
        ),
        preserving_proto_field_name=True,
    )
    for span_ in written["resource_spans"][0]["scope_spans"][0]["spans"]:
        span_.update(trace_id="01" * 16, span_id="01" * 8)
    decoded = read(written)
    assert decoded.repairs == {"snake_case": 1}
    (found,) = spans_of(parse(decoded))
    assert found.attributes[0].key == "a_b"
    assert found.attributes[0].value.string_value == "c_d"


@pytest.mark.parametrize(
    "body", [b"{}", b'{"resourceSpans":[]}', b'{"resourceSpans":null}', b" {}\n"]
)
def test_empty_request_is_a_success(body):
    assert read(body) == Decoded()


def test_resource_without_spans_is_a_success():
    assert read({"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": []}]}]}) == Decoded()


def test_byte_order_mark_is_skipped():
    assert read(b"\xef\xbb\xbf" + json.dumps(document(span())).encode()).accepted == 1


def test_request_with_other_keys_only_is_taken_with_a_warning():
    decoded = read({"batches": [], "spans": [span()]})
    assert (decoded.accepted, decoded.rejected) == (0, {})
    assert "no resourceSpans" in decoded.message
    assert "'batches', 'spans'" in decoded.message


MALFORMED = {
    "nothing": b"",
    "an array on top": b"[]",
    "a string on top": b'"x"',
    "two documents": b'{"resourceSpans":[]}\n{"resourceSpans":[]}',
    "trailing comma": b'{"resourceSpans":[],}',
    "cut off": json.dumps(document(span())).encode()[:-5],
    "UTF-16": json.dumps(document(span())).encode("utf-16"),
    "bad UTF-8 in a name": json.dumps(document(span(name="NAME")))
    .encode()
    .replace(b"NAME", b"\xff"),
    "bad UTF-8 in an attribute": json.dumps(
        document(span(attributes=[{"key": "NAME", "value": {"stringValue": "x"}}]))
    )
    .encode()
    .replace(b"NAME", b"\xff"),
    "protobuf": b"\x0a\x00",
    "null in a large document": json.dumps([None] * 2**18).encode(),
    "NaN as a number": b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"flags":NaN}]}]}]}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_json_request_is_malformed(body):
    refused = refusal(body)
    assert refused.cause is Cause.MALFORMED
    assert "JSON Protobuf Encoding" in refused.message


SPAN = "$.resourceSpans[0].scopeSpans[0].spans[1]"
VALUE = SPAN + ".attributes[1].value"


@pytest.mark.parametrize(
    ("fields", "path", "problem"),
    [
        ({"name": 5}, SPAN + ".name", "got `int`"),
        ({"attributes": {}}, SPAN + ".attributes", "got `object`"),
        ({"attributes": [5]}, SPAN + ".attributes[0]", "got `int`"),
        ({"startTimeUnixNano": "soon"}, SPAN + ".startTimeUnixNano", "decimal strings"),
        ({"startTimeUnixNano": -1}, SPAN + ".startTimeUnixNano", "whole number from 0"),
        ({"startTimeUnixNano": 2**64}, SPAN + ".startTimeUnixNano", "whole number"),
        ({"startTimeUnixNano": "1_0"}, SPAN + ".startTimeUnixNano", "decimal strings"),
        ({"startTimeUnixNano": {"low": 1}}, SPAN + ".startTimeUnixNano", "`high`"),
        ({"flags": 2**32}, SPAN + ".flags", "whole number"),
        ({"kind": 2**31}, SPAN + ".kind", "32-bit"),
        (
            {"links": [{"traceId": "01" * 16, "spanId": "01" * 8, "flags": 0.5}]},
            SPAN + ".links[0].flags",
            "whole number",
        ),
        ({"status": {"code": 1.5}}, SPAN + ".status.code", "got `float`"),
        ({"events": [{}, {"timeUnixNano": -1}]}, SPAN + ".events[1].timeUnixNano", "whole"),
        ({"droppedLinksCount": -1}, SPAN + ".droppedLinksCount", "whole number"),
        ({"value": {"intValue": "9223372036854775808"}}, VALUE + ".intValue", "whole number"),
        ({"value": {"intValue": 0.5}}, VALUE + ".intValue", "whole number"),
        ({"value": {"doubleValue": "many"}}, VALUE + ".doubleValue", "got `str`"),
        ({"value": {"bytesValue": "!"}}, VALUE + ".bytesValue", "base64"),
        ({"value": {"boolValue": "maybe"}}, VALUE + ".boolValue", "got `str`"),
        ({"value": {"stringValue": 1}}, VALUE + ".stringValue", "got `int`"),
        (
            {"value": {"arrayValue": {"values": [{}, {"kvlistValue": {"values": [
                {"key": "k", "value": {"intValue": 0.5}}]}}]}}},
            VALUE + ".arrayValue.values[1].kvlistValue.values[0].value.intValue",
            "whole number",
        ),
    ],
    ids=str,
)  # fmt: skip
def test_problem_is_told_with_its_path(fields, path, problem):
    if "value" in fields:
        fields = {"attributes": [{"key": "a"}, {"key": "b", "value": fields["value"]}]}
    refused = refusal(document(span(), span(**fields)))
    assert refused.cause is Cause.MALFORMED
    assert f"at {path}:" in refused.message
    assert problem in refused.message


@pytest.mark.parametrize("place", ["resource", "scope"])
def test_problem_in_resource_and_scope_is_told_with_its_path(place):
    part = {place: {"attributes": [{"key": "k", "value": {"intValue": "x"}}]}}
    bad = {"scopeSpans": [{"spans": [span()]}, part]} if place == "scope" else part
    path = "$.resourceSpans[1]" + (".scopeSpans[1]" if place == "scope" else "")
    good = {"scopeSpans": [{"spans": [span()]}]}
    message = refusal({"resourceSpans": [good, bad]}).message
    assert f"at {path}.{place}.attributes[0].value.intValue:" in message


@pytest.mark.parametrize("place", ["resource", "scope"])
def test_repairs_in_resource_and_scope_are_counted_each_time(place):
    halves = {"key": "k", "value": {"intValue": {"low": 1, "high": 0}}}
    listed = {"spans": [span()]}
    top = {"scopeSpans": [listed]}
    (top if place == "resource" else listed)[place] = {"attributes": [halves]}
    for _ in range(2):
        assert read({"resourceSpans": [top]}).repairs == {"integer_halves": 1}


@pytest.mark.parametrize("place", ["resource", "scope"])
def test_resource_and_scope_that_are_not_utf8_are_malformed(place):
    listed = b'"spans":[%b]' % json.dumps(span()).encode()
    bad = b'"%b":{"attributes":[{"key":"k","value":{"stringValue":"\xff"}}]}' % place.encode()
    top = (bad, listed) if place == "resource" else (b'"schemaUrl":"x"', bad + b"," + listed)
    body = b'{"resourceSpans":[{%b,"scopeSpans":[{%b}]}]}' % top
    assert read(body.replace(b"\xff", b"x")).accepted == 1
    assert f"[0].{place}" in refusal(body).message


def test_null_in_a_list_is_malformed():
    assert "spans[1]" in refusal(document(span(), None)).message


def nested(levels: str) -> Any:
    value: Any = {"intValue": 1}
    for level in reversed(levels):
        if level == "a":
            value = {"arrayValue": {"values": [value]}}
        else:
            value = {"kvlistValue": {"values": [{"key": "k", "value": value}]}}
    return value


@pytest.mark.parametrize("levels", ["a", "k", "ak"])
def test_64_levels_are_taken_and_65_refused(levels):
    deepest = (levels * MAX_DEPTH)[: MAX_DEPTH - 1]
    decoded = read(document(span(attributes=[{"key": "k", "value": nested(deepest)}])))
    assert depth_of(decoded.payloads[0][0]) == MAX_DEPTH
    body = document(span(attributes=[{"key": "k", "value": nested(deepest + "a")}]))
    assert refusal(body).cause is Cause.TOO_DEEP


@pytest.mark.parametrize("place", ["attribute", "unknown key", "top"])
def test_depth_that_no_parser_takes_is_refused(place):
    deep = b"[" * 100_000
    body = {
        "attribute": b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"key":"k",'
        + b'"value":{"arrayValue":{"values":[' * 20_000,
        "unknown key": b'{"x":' + deep,
        "top": deep,
    }[place]
    with pytest.raises(Refused):
        read(body)


def test_snake_case_document_that_is_too_deep_is_refused():
    body = b'{"resource_spans":' + b"[" * 2000 + b"]" * 2000 + b"}"
    assert refusal(body).cause is Cause.TOO_DEEP


def test_flood_of_tiny_objects_is_refused():
    flood = ",".join(['{"key":"k"}'] * 100_000)
    assert (
        "too small"
        in refusal(b'{"resourceSpans":[{"scopeSpans":[{"spans":[%s]}]}]}' % flood.encode()).message
    )
    body = json.dumps(document(span(name="x" * 2**21, attributes=["ATTRIBUTES"]))).encode()
    refused = refusal(body.replace(b'"ATTRIBUTES"', flood.encode()))
    assert "too many small attributes" in refused.message
    assert "spans[0].attributes" in refused.message


def test_large_document_in_snake_case_is_not_converted():
    decoded = read({"resource_spans": [{"x": "y" * 2**20}]})
    assert (decoded.accepted, decoded.repairs) == (0, {})
    assert "no resourceSpans" in decoded.message
