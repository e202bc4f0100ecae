"""Spans of OTLP/JSON: checked, and written in protobuf in the order of their fields."""

from __future__ import annotations

import struct

import msgspec

from gateway.otlp.fields import delimited, varint
from gateway.otlp.json_attributes import NO_ATTRIBUTES, attributes
from gateway.otlp.json_scalars import (
    UINT32,
    UINT64,
    Number,
    Object,
    Problem,
    Repairs,
    enum,
    identifier,
    integer,
)
from gateway.otlp.report import Report
from gateway.otlp.rules import fault_of

_KINDS = {
    "SPAN_KIND_UNSPECIFIED": 0,
    "SPAN_KIND_INTERNAL": 1,
    "SPAN_KIND_SERVER": 2,
    "SPAN_KIND_CLIENT": 3,
    "SPAN_KIND_PRODUCER": 4,
    "SPAN_KIND_CONSUMER": 5,
}
_STATUS_CODES = {"STATUS_CODE_UNSET": 0, "STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}

_TIMES = struct.Struct("<BQBQ")
_TIME = struct.Struct("<BQ")
_FLAGS = struct.Struct("<I")


class Event(Object):
    time_unix_nano: Number = None
    name: str | None = None
    attributes: msgspec.Raw = NO_ATTRIBUTES
    dropped_attributes_count: Number = None


class Link(Object):
    trace_id: str | None = None
    span_id: str | None = None
    trace_state: str | None = None
    attributes: msgspec.Raw = NO_ATTRIBUTES
    dropped_attributes_count: Number = None
    flags: Number = None


class Status(Object):
    message: str | None = None
    code: int | str | None = None


class Span(Object):
    trace_id: str | None = None
    span_id: str | None = None
    trace_state: str | None = None
    parent_span_id: str | None = None
    flags: Number = None
    name: str | None = None
    kind: int | str | None = None
    start_time_unix_nano: Number = None
    end_time_unix_nano: Number = None
    attributes: msgspec.Raw = NO_ATTRIBUTES
    dropped_attributes_count: Number = None
    events: list[Event] | None = None
    dropped_events_count: Number = None
    links: list[Link] | None = None
    dropped_links_count: Number = None
    status: Status | None = None


class Spans:
    """Writes the spans of one request; reports the bad ones."""

    def __init__(self, report: Report, repairs: Repairs, latest_ns: int) -> None:
        self._report = report
        self._repairs = repairs
        self._latest_ns = latest_ns

    def write(self, span: Span) -> bytes | None:
        """The span in protobuf; None if it breaks a rule. Raises Problem."""
        repairs = self._repairs
        trace_id = identifier(span.trace_id, 16, repairs)
        span_id = identifier(span.span_id, 8, repairs)
        parent_span_id = identifier(span.parent_span_id, 8, repairs)
        start_ns = integer(span.start_time_unix_nano, UINT64, repairs, ".startTimeUnixNano")
        end_ns = integer(span.end_time_unix_nano, UINT64, repairs, ".endTimeUnixNano")
        links = [
            (identifier(link.trace_id, 16, repairs), identifier(link.span_id, 8, repairs))
            for link in span.links or ()
        ]
        reason = fault_of(
            trace_id, span_id, parent_span_id, start_ns, end_ns, links, self._latest_ns
        )
        if reason is not None:
            self._report.refuse(span.name or "", trace_id, reason)
            return None
        self._report.accept()
        return b"".join(
            (
                b"\x0a\x10",
                trace_id,
                b"\x12\x08",
                span_id,
                text(b"\x1a", span.trace_state),
                b"\x22\x08" + parent_span_id if parent_span_id else b"",
                text(b"\x2a", span.name),
                self._enum(b"\x30", span.kind, _KINDS, ".kind"),
                _TIMES.pack(0x39, start_ns, 0x41, end_ns),
                attributes(b"\x4a", span.attributes, repairs),
                count(b"\x50", span.dropped_attributes_count, repairs, ".droppedAttributesCount"),
                self._events(span.events) if span.events else b"",
                count(b"\x60", span.dropped_events_count, repairs, ".droppedEventsCount"),
                self._links(span.links, links) if span.links else b"",
                count(b"\x70", span.dropped_links_count, repairs, ".droppedLinksCount"),
                b"" if span.status is None else self._status(span.status),
                self._flags(b"\x85\x01", span.flags),
            )
        )

    def _events(self, events: list[Event]) -> bytes:
        written = []
        for index, event in enumerate(events):
            try:
                content = self._event(event)
            except Problem as problem:
                raise problem.under(f".events[{index}]") from None
            written.append(delimited(b"\x5a", content))
        return b"".join(written)

    def _event(self, event: Event) -> bytes:
        repairs = self._repairs
        time_ns = integer(event.time_unix_nano, UINT64, repairs, ".timeUnixNano")
        return b"".join(
            (
                _TIME.pack(0x09, time_ns) if time_ns else b"",
                text(b"\x12", event.name),
                attributes(b"\x1a", event.attributes, repairs),
                count(b"\x20", event.dropped_attributes_count, repairs, ".droppedAttributesCount"),
            )
        )

    def _links(self, links: list[Link], ids: list[tuple[bytes, bytes]]) -> bytes:
        written = []
        for index, (link, (trace_id, span_id)) in enumerate(zip(links, ids, strict=True)):
            try:
                content = self._link(link)
            except Problem as problem:
                raise problem.under(f".links[{index}]") from None
            head = b"\x0a\x10" + trace_id + b"\x12\x08" + span_id
            written.append(delimited(b"\x6a", head + content))
        return b"".join(written)

    def _link(self, link: Link) -> bytes:
        """What follows the ids."""
        repairs = self._repairs
        return b"".join(
            (
                text(b"\x1a", link.trace_state),
                attributes(b"\x22", link.attributes, repairs),
                count(b"\x28", link.dropped_attributes_count, repairs, ".droppedAttributesCount"),
                self._flags(b"\x35", link.flags),
            )
        )

    def _status(self, status: Status) -> bytes:
        code = self._enum(b"\x18", status.code, _STATUS_CODES, ".status.code")
        return delimited(b"\x7a", text(b"\x12", status.message) + code)

    def _enum(self, tag: bytes, value: int | str | None, names: dict[str, int], path: str) -> bytes:
        number = enum(value, names, self._repairs, path)
        return tag + varint(number & UINT64[1]) if number else b""

    def _flags(self, tag: bytes, value: Number) -> bytes:
        flags = integer(value, UINT32, self._repairs, ".flags")
        return tag + _FLAGS.pack(flags) if flags else b""


def text(tag: bytes, value: str | None) -> bytes:
    return delimited(tag, value.encode()) if value else b""


def count(tag: bytes, value: Number, repairs: Repairs, path: str) -> bytes:
    if value is None:
        return b""
    number = integer(value, UINT32, repairs, path)
    return tag + varint(number) if number else b""
