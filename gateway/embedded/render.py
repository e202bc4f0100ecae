"""Answers in the shapes of Tempo's HTTP API: ids in base64 in traces and in hex in search results,
64-bit numbers as strings, fields with their zero value left out.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from typing import Any

from opentelemetry.proto.trace.v1 import trace_pb2

from gateway.embedded.conditions import (
    Compare,
    CompareFields,
    Condition,
    Exists,
    Matches,
    Spanset,
    filters,
    leaves,
)
from gateway.embedded.literals import show_duration
from gateway.embedded.messages import ResourceSpans, Span, TracesData, Value, text
from gateway.embedded.search import FoundTrace
from gateway.embedded.stored import KIND_NAMES, STATUS_NAMES, Field, StoredSpan

Json = dict[str, Any]

NO_ROOT = "<root span not yet received>"
_KINDS: list[str] = trace_pb2.Span.SpanKind.keys()
_STATUS_CODES: list[str] = trace_pb2.Status.StatusCode.keys()


# Traces.


def trace_message(parts: Iterable[tuple[bytes, list[bytes]]]) -> Any:
    """A ``TracesData`` of spans and the headers they came under; scopes of one resource are put
    together.
    """
    trace = TracesData()
    resources: dict[bytes, Any] = {}
    for header_bytes, bodies in parts:
        header = ResourceSpans.FromString(header_bytes)
        scope_spans = header.scope_spans.pop()
        key = header.SerializeToString()
        if key not in resources:
            resources[key] = trace.resource_spans.add()
            resources[key].CopyFrom(header)
        scope_spans.spans.extend(Span.FromString(body) for body in bodies)
        resources[key].scope_spans.append(scope_spans)
    return trace


def trace_by_id_response(trace: Any) -> bytes:
    """A ``tempopb.TraceByIDResponse``: the trace is its field 1, its field 2 empty metrics."""
    body: bytes = trace.SerializeToString()
    length, size = len(body), b""
    while length > 0x7F:
        size += bytes([length & 0x7F | 0x80])
        length >>= 7
    return b"\x0a" + size + bytes([length]) + body + b"\x12\x00"


def trace_json(trace: Any, key: str) -> Json:
    """``key`` is what the API's version calls the list: ``batches`` or ``resourceSpans``."""
    batches = [_resource_spans_json(each) for each in trace.resource_spans]
    return {key: batches} if batches else {}


def _resource_spans_json(resource_spans: Any) -> Json:
    return {
        "resource": _present(attributes=_attributes_json(resource_spans.resource.attributes)),
        "scopeSpans": [
            {
                "scope": _present(
                    name=text(each.scope.name),
                    version=text(each.scope.version),
                    attributes=_attributes_json(each.scope.attributes),
                ),
                "spans": [_span_json(span) for span in each.spans],
            }
            for each in resource_spans.scope_spans
        ],
    }


def _span_json(span: Any) -> Json:
    return _present(
        traceId=_base64(span.trace_id),
        spanId=_base64(span.span_id),
        traceState=text(span.trace_state),
        parentSpanId=_base64(span.parent_span_id),
        flags=span.flags,
        name=text(span.name),
        kind=_enum(_KINDS, span.kind),
        startTimeUnixNano=_int64(span.start_time_unix_nano),
        endTimeUnixNano=_int64(span.end_time_unix_nano),
        attributes=_attributes_json(span.attributes),
        droppedAttributesCount=span.dropped_attributes_count,
        events=[_event_json(event) for event in span.events],
        droppedEventsCount=span.dropped_events_count,
        links=[_link_json(link) for link in span.links],
        droppedLinksCount=span.dropped_links_count,
    ) | {
        "status": _present(
            message=text(span.status.message), code=_enum(_STATUS_CODES, span.status.code)
        )
    }


def _event_json(event: Any) -> Json:
    return _present(
        timeUnixNano=_int64(event.time_unix_nano),
        name=text(event.name),
        attributes=_attributes_json(event.attributes),
        droppedAttributesCount=event.dropped_attributes_count,
    )


def _link_json(link: Any) -> Json:
    return _present(
        traceId=_base64(link.trace_id),
        spanId=_base64(link.span_id),
        traceState=text(link.trace_state),
        attributes=_attributes_json(link.attributes),
        droppedAttributesCount=link.dropped_attributes_count,
        flags=link.flags,
    )


def _attributes_json(attributes: Iterable[Any]) -> list[Json]:
    return [{"key": text(pair.key), "value": _any_json(pair.value)} for pair in attributes]


def _any_json(value: Any) -> Json:
    match value.WhichOneof("value"):
        case "string_value":
            return {"stringValue": text(value.string_value)}
        case "bool_value":
            return {"boolValue": value.bool_value}
        case "int_value":
            return {"intValue": str(value.int_value)}
        case "double_value":
            return {"doubleValue": _double(value.double_value)}
        case "bytes_value":
            return {"bytesValue": _base64(value.bytes_value)}
        case "array_value":
            values = [_any_json(each) for each in value.array_value.values]
            return {"arrayValue": _present(values=values)}
        case "kvlist_value":
            return {"kvlistValue": _present(values=_attributes_json(value.kvlist_value.values))}
        case _:
            return {}


def _present(**fields: Any) -> Json:
    return {name: value for name, value in fields.items() if value}


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _int64(value: int) -> str:
    return str(value) if value else ""


def _double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _enum(names: list[str], number: int) -> str | int:
    if number == 0:
        return ""
    return names[number] if 0 < number < len(names) else number


# Search results.

# Told elsewhere in the answer, or of no use in it.
_NOT_SHOWN = frozenset(
    [
        *("name", "duration", "traceDuration", "rootName", "rootServiceName"),
        *("trace:id", "span:id"),
    ]
)


def search_json(found: Iterable[FoundTrace], spanset: Spanset | None) -> Json:
    """``spanset`` is the query, or None if the answer shall not tell which spans matched."""
    return {
        "traces": [_found_json(each, spanset) for each in found],
        "metrics": {"completedJobs": 1, "totalJobs": 1},
    }


def _found_json(found: FoundTrace, spanset: Spanset | None) -> Json:
    trace = found.trace
    shown = _present(
        traceID=trace.trace_id.hex().lstrip("0"),
        rootServiceName=trace.root_service or NO_ROOT,
        rootTraceName=trace.root_name,
        startTimeUnixNano=_int64(trace.trace_start_ns),
        durationMs=(trace.trace_end_ns - trace.trace_start_ns) // 10**6,
    )
    if spanset is None:
        return shown
    asked = [leaf for each in filters(spanset) for leaf in leaves(each.condition)]
    spans = [_found_span_json(span, asked) for span in found.spans]
    result = {"spans": spans, "matched": found.matched}
    services = {
        name: _present(spanCount=stats.spans, errorCount=stats.errors)
        for name, stats in found.services.items()
    }
    return shown | {"spanSet": result, "spanSets": [result], "serviceStats": services}


def _found_span_json(span: StoredSpan, asked: Iterable[Condition]) -> Json:
    answers: dict[Field, Value] = {}
    for leaf in asked:
        answers |= _answers(span, leaf)
    return _present(
        spanID=span.row.span_id.hex(),
        name=span.row.name if Field("intrinsic", "name") in answers else "",
        startTimeUnixNano=_int64(span.row.start_ns),
        durationNanos=_int64(span.row.duration_ns),
        attributes=[
            {"key": field.name, "value": _value_json(field, value)}
            for field, value in answers.items()
            if not (field.is_intrinsic and field.name in _NOT_SHOWN)
        ],
    )


def _answers(span: StoredSpan, leaf: Condition) -> dict[Field, Value]:
    """The fields that a condition asked for, with the values for which it holds."""
    match leaf:
        case Compare(field) | Matches(field):
            return _first(field, leaf.matches(span))
        case Exists(field, True):
            return _first(field, span.values(field))
        case Exists(field, False) if leaf.holds(span):
            return {field: "nil"}
        case CompareFields(left, _, right) if leaf.holds(span):
            return {field: span.scalars(field)[0] for field in (left, right)}
        case _:
            return {}


def _first(field: Field, values: Sequence[Value]) -> dict[Field, Value]:
    return {field: values[0]} if values else {}


def _value_json(field: Field, value: Value) -> Json:
    if field.is_intrinsic and isinstance(value, int):
        if field.name == "event:timeSinceStart":
            return {"stringValue": show_duration(value)}
        names = STATUS_NAMES if field.name == "status" else KIND_NAMES
        return {"stringValue": names[value] if 0 <= value < len(names) else str(value)}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value_json(field, each) for each in value]}}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": _double(value)} if isinstance(value, float) else {"stringValue": value}
