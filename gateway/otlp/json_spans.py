"""Spans of OTLP/JSON: checked, and written in protobuf."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from gateway.otlp.fields import delimited, varint
from gateway.otlp.json_attributes import NO_ATTRIBUTES, Attributes
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
from gateway.otlp.rules import ZERO_SPAN_ID, ZERO_TRACE_ID, fault_of

_KINDS = {
    "SPAN_KIND_UNSPECIFIED": 0,
    "SPAN_KIND_INTERNAL": 1,
    "SPAN_KIND_SERVER": 2,
    "SPAN_KIND_CLIENT": 3,
    "SPAN_KIND_PRODUCER": 4,
    "SPAN_KIND_CONSUMER": 5,
}
_STATUS_CODES = {"STATUS_CODE_UNSET": 0, "STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}

_KIND_FIELDS: dict[int | str | None, bytes] = {None: b"", 0: b""}
_KIND_FIELDS |= {kind: bytes((0x30, kind)) for kind in range(1, 6)}
_STATUS_FIELDS: dict[int | str | None, bytes] = {None: b"\x7a\x00", 0: b"\x7a\x00"}
_STATUS_FIELDS |= {code: bytes((0x7A, 2, 0x18, code)) for code in (1, 2)}
"""What nearly all spans have, by number; the status without a message."""

_FLAGS_FIELDS = {flags: b"\x85\x01" + struct.pack("<I", flags) for flags in range(1, 1024)}
"""The bits that OTLP defines."""

_SPAN_ATTRIBUTES = Attributes(b"\x4a", max_bytes=4 * 1024 * 1024)
_EVENT_ATTRIBUTES = Attributes(b"\x1a", max_bytes=1024 * 1024)
_LINK_ATTRIBUTES = Attributes(b"\x22", max_bytes=1024 * 1024)

_ZERO_TRACE_ID = ZERO_TRACE_ID.hex()
_ZERO_SPAN_ID = ZERO_SPAN_ID.hex()
_from_hex = bytes.fromhex

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
        """The span as a field of a scope_spans; None if it breaks a rule. Raises Problem."""
        links: Sequence[tuple[bytes, bytes]] = ()
        head = None if span.links or span.trace_state else self._plain_head(span)
        if head is None:
            links = self._link_ids(span.links) if span.links else ()
            head = self._head(span, links)
            if head is None:
                return None
        self._report.accept()
        status, flags = span.status, span.flags
        content = b"".join(
            (
                head,
                _SPAN_ATTRIBUTES.write(span.attributes, self._repairs),
                self._events(span.events) if span.events else b"",
                self._links(span.links, links) if span.links else b"",
                b"" if status is None else self._status(status),
                (type(flags) is int and _FLAGS_FIELDS.get(flags)) or self._flags(b"\x85\x01", flags)
                if flags
                else b"",
                self._dropped(span)
                if span.dropped_attributes_count
                or span.dropped_events_count
                or span.dropped_links_count
                else b"",
            )
        )
        return b"\x12" + varint(len(content)) + content

    def _plain_head(self, span: Span) -> bytes | None:
        """The fields up to the attributes of a span that keeps the rules and is written as the
        specification has it; None where there is more to look at. Links and the trace state are
        not looked at.
        """
        trace_id, span_id, parent_span_id = span.trace_id, span.span_id, span.parent_span_id
        start_ns, end_ns = span.start_time_unix_nano, span.end_time_unix_nano
        kind = _KIND_FIELDS.get(span.kind)
        if (
            trace_id is None
            or span_id is None
            or kind is None
            or type(start_ns) is not int
            or type(end_ns) is not int
            or not 0 < start_ns <= self._latest_ns
            or not start_ns <= end_ns <= UINT64[1]
            or len(trace_id) != 32
            or len(span_id) != 16
            or trace_id == _ZERO_TRACE_ID
            or span_id == _ZERO_SPAN_ID
        ):
            return None
        try:
            if parent_span_id:
                ids = _from_hex(f"0a10{trace_id}1208{span_id}2208{parent_span_id}")
                good = len(ids) == 38 and len(parent_span_id) == 16
            else:
                ids = _from_hex(f"0a10{trace_id}1208{span_id}")
                good = len(ids) == 28  # less where there were blanks
        except ValueError:
            return None
        if not good:
            return None
        name = span.name
        if name:
            ids += _short_name(name) if len(name) <= 64 else text(b"\x2a", name)
        return ids + kind + _TIMES.pack(0x39, start_ns, 0x41, end_ns)

    def _head(self, span: Span, links: Sequence[tuple[bytes, bytes]]) -> bytes | None:
        """The fields up to the attributes of any span; None if it breaks a rule."""
        repairs = self._repairs
        trace_id = identifier(span.trace_id, 16, repairs) if span.trace_id else b""
        span_id = identifier(span.span_id, 8, repairs) if span.span_id else b""
        parent_span_id = identifier(span.parent_span_id, 8, repairs) if span.parent_span_id else b""
        start_ns = integer(span.start_time_unix_nano, UINT64, repairs, ".startTimeUnixNano")
        end_ns = integer(span.end_time_unix_nano, UINT64, repairs, ".endTimeUnixNano")
        reason = fault_of(
            trace_id, span_id, parent_span_id, start_ns, end_ns, links, self._latest_ns
        )
        if reason is not None:
            self._report.refuse(span.name or "", trace_id, reason)
            return None
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
            )
        )

    def _link_ids(self, links: list[Link]) -> list[tuple[bytes, bytes]]:
        repairs = self._repairs
        return [
            (
                identifier(link.trace_id, 16, repairs) if link.trace_id else b"",
                identifier(link.span_id, 8, repairs) if link.span_id else b"",
            )
            for link in links
        ]

    def _dropped(self, span: Span) -> bytes:
        repairs = self._repairs
        return (
            count(b"\x50", span.dropped_attributes_count, repairs, ".droppedAttributesCount")
            + count(b"\x60", span.dropped_events_count, repairs, ".droppedEventsCount")
            + count(b"\x70", span.dropped_links_count, repairs, ".droppedLinksCount")
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
                _EVENT_ATTRIBUTES.write(event.attributes, repairs),
                count(b"\x20", event.dropped_attributes_count, repairs, ".droppedAttributesCount"),
            )
        )

    def _links(self, links: list[Link], ids: Sequence[tuple[bytes, bytes]]) -> bytes:
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
                _LINK_ATTRIBUTES.write(link.attributes, repairs),
                count(b"\x28", link.dropped_attributes_count, repairs, ".droppedAttributesCount"),
                self._flags(b"\x35", link.flags),
            )
        )

    def _status(self, status: Status) -> bytes:
        if not status.message and status.code in _STATUS_FIELDS:
            return _STATUS_FIELDS[status.code]
        code = self._enum(b"\x18", status.code, _STATUS_CODES, ".status.code")
        return delimited(b"\x7a", text(b"\x12", status.message) + code)

    def _enum(self, tag: bytes, value: int | str | None, names: dict[str, int], path: str) -> bytes:
        number = enum(value, names, self._repairs, path)
        return tag + varint(number & UINT64[1]) if number else b""

    def _flags(self, tag: bytes, value: Number) -> bytes:
        flags = integer(value, UINT32, self._repairs, ".flags")
        return tag + _FLAGS.pack(flags) if flags else b""


@lru_cache(4096)
def _short_name(name: str) -> bytes:
    """Spans have few different names (OpenTelemetry specification, "Span"), so they are kept."""
    return text(b"\x2a", name)


def text(tag: bytes, value: str | None) -> bytes:
    return delimited(tag, value.encode()) if value else b""


def count(tag: bytes, value: Number, repairs: Repairs, path: str) -> bytes:
    if value is None:
        return b""
    number = integer(value, UINT32, repairs, path)
    return tag + varint(number) if number else b""
