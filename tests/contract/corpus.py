"""Three traces that have something of everything, for the contract of the backends."""

from __future__ import annotations

from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from tests.kit.spans import attribute

MS = 10**6
SECOND = 10**9

# The ids of two begin with zeros, which search results leave out.
CART = bytes.fromhex("0000000000000000000000000000ab12")
CHARGE = bytes.fromhex("0abc0000000000000000000000000001")
ORPHAN = bytes.fromhex("cccccccccccccccccccccccccccccccc")
NAMES = {"ab12": "cart", "abc0000000000000000000000000001": "charge", ORPHAN.hex(): "orphan"}
SPANS = {
    1: "GET /cart",
    2: "auth",
    3: "SELECT cart",
    4: "query",
    0x0A0B: "charge",
    0x0A0C: "emit",
    0xC1: "orphan",
}


def span_id(number: int) -> bytes:
    return number.to_bytes(8, "big")


def attributes(**values: str | bool | float) -> list[KeyValue]:
    return [attribute(key.replace("__", "."), value) for key, value in values.items()]


def strings(*values: str) -> AnyValue:
    return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=v) for v in values]))


def corpus(now_ns: int) -> ExportTraceServiceRequest:
    began = now_ns - 60 * SECOND

    def span(trace_id: bytes, number: int, start: int, duration: int, **fields: Any) -> Span:
        return Span(
            trace_id=trace_id,
            span_id=span_id(number),
            name=SPANS[number],
            start_time_unix_nano=began + start,
            end_time_unix_nano=began + start + duration,
            **fields,
        )

    cart = span(
        CART,
        1,
        0,
        100 * MS,
        kind=Span.SPAN_KIND_SERVER,
        trace_state="a=b",
        attributes=[
            *attributes(http__status_code=200, http__method="GET", flag=True, ratio=0.5),
            *attributes(foo="bar"),
            KeyValue(key="list", value=strings("x", "y")),
            KeyValue(key="raw", value=AnyValue(bytes_value=b"\x01\x02")),
            KeyValue(
                key="map",
                value=AnyValue(kvlist_value=KeyValueList(values=attributes(inner="deep"))),
            ),
        ],
    )
    auth = span(
        CART,
        2,
        5 * MS,
        10 * MS,
        kind=Span.SPAN_KIND_INTERNAL,
        parent_span_id=span_id(1),
        attributes=attributes(http__status_code=404, empty=""),
    )
    select = span(
        CART,
        3,
        20 * MS,
        50 * MS,
        kind=Span.SPAN_KIND_CLIENT,
        parent_span_id=span_id(1),
        status=Status(code=Status.STATUS_CODE_ERROR, message="boom"),
        attributes=attributes(db__system="pg"),
        events=[
            Span.Event(
                time_unix_nano=began + 30 * MS,
                name="exception",
                attributes=attributes(exception__type="E1"),
            )
        ],
        links=[
            Span.Link(trace_id=CHARGE, span_id=span_id(9), attributes=attributes(linkattr="la"))
        ],
    )
    query = span(
        CART,
        4,
        25 * MS,
        40 * MS,
        kind=Span.SPAN_KIND_SERVER,
        parent_span_id=span_id(3),
        status=Status(code=Status.STATUS_CODE_OK),
        attributes=attributes(foo=3),
    )
    charge = span(
        CHARGE,
        0x0A0B,
        SECOND,
        SECOND,
        kind=Span.SPAN_KIND_CONSUMER,
        status=Status(code=Status.STATUS_CODE_OK),
        attributes=[*attributes(foo="bar baz", http__status_code=201)],
    )
    emit = span(
        CHARGE,
        0x0A0C,
        SECOND + 100 * MS,
        MS,
        kind=Span.SPAN_KIND_PRODUCER,
        parent_span_id=span_id(0x0A0B),
        attributes=[attribute("weird key", "w"), attribute("http.url", "/pay?x=1")],
    )
    orphan = span(
        ORPHAN,
        0xC1,
        2 * SECOND,
        1500,
        parent_span_id=span_id(0xDEAD),
        attributes=attributes(foo="orph", n=-5),
    )
    shop = Resource(
        attributes=[
            *attributes(service__name="shop", deployment__environment="prod", host__cores=8)
        ]
    )
    library = InstrumentationScope(
        name="lib-a", version="1.2", attributes=attributes(scopeattr="sa")
    )
    return ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=shop,
                scope_spans=[
                    ScopeSpans(scope=library, spans=[cart, auth]),
                    ScopeSpans(scope=InstrumentationScope(name="lib-b"), spans=[select]),
                ],
            ),
            ResourceSpans(
                resource=Resource(attributes=attributes(service__name="db")),
                scope_spans=[ScopeSpans(spans=[query])],
            ),
            ResourceSpans(
                resource=Resource(attributes=attributes(service__name="pay")),
                scope_spans=[ScopeSpans(spans=[charge, emit])],
            ),
            ResourceSpans(scope_spans=[ScopeSpans(spans=[orphan])]),
        ]
    )
