"""Requests in protobuf: checked through narrow views, and passed on as the bytes they came in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.message import DecodeError

from gateway.otlp.clean import Columns, are_clean, count_clean
from gateway.otlp.depth import check
from gateway.otlp.fields import malformed
from gateway.otlp.media import Decoded
from gateway.otlp.report import Report
from gateway.otlp.rules import fault_of, link_fault_of
from gateway.otlp.wire import check_density, check_fields, split, without
from proto_stubs.view_pb2 import Census, Link, LinkCensus, Shape, ShapeSpan, Span

_PIECE_BYTES = 4 * 1024 * 1024
"""Most that is looked at in one go, since a view of hostile data takes up to twenty times its size;
only a single span may be larger.
"""
_SMALL_BYTES = 2 * 1024
"""Up to about five spans, a view with objects is faster than one with columns."""


def decode_protobuf(body: bytes, latest_ns: int, max_spans: int, max_bytes: int) -> Decoded:
    """See ``gateway.otlp.decode.decode``; ``latest_ns`` is the last start that is taken."""
    try:
        if len(body) <= _SMALL_BYTES and len(body) <= max_bytes:
            count = count_clean(body, latest_ns)
            if 0 < count <= max_spans:
                return Decoded(((body, count),), count)
        return _decode(body, latest_ns, max_spans, min(max_bytes, _PIECE_BYTES))
    except DecodeError as error:
        malformed(str(error).rpartition(": ")[2])


def _decode(body: bytes, latest_ns: int, max_spans: int, max_bytes: int) -> Decoded:
    if len(body) <= max_bytes:
        spans = _spans_of(body)
        if len(spans) <= max_spans:
            if _is_clean(body, spans, latest_ns):
                return Decoded(((body, len(spans)),), len(spans)) if spans else Decoded()
            return _salvaged([(body, spans, False)], latest_ns)
    return _salvaged(_pieces(body, latest_ns, max_spans, max_bytes), latest_ns)


def _spans_of(piece: bytes) -> list[bytes]:
    """Each span, serialized."""
    return Census.FromString(piece).resource_spans.scope_spans.spans[:]


def _is_clean(piece: bytes, spans: list[bytes], latest_ns: int) -> bool:
    """Whether no span breaks a rule. Raises Refused for what spoils the whole request."""
    if len(piece) > _PIECE_BYTES:
        check_fields(spans[0])
    check_density(len(spans), len(piece), "spans")
    shape = Shape.FromString(piece)
    if not spans:
        check(shape, piece)
        return True
    merged = shape.resource_spans.scope_spans.spans
    columns = Columns.taken_from(merged)
    check(shape, piece)
    return are_clean(spans, columns, latest_ns) and _have_good_links(piece, merged)


def _pieces(
    body: bytes, latest_ns: int, max_spans: int, max_bytes: int
) -> Iterator[tuple[bytes, list[bytes], bool]]:
    """The body in pieces, each with its spans and whether they are clean."""
    for piece, _ in split(body, max_spans=max_spans, max_bytes=max_bytes):
        spans = _spans_of(piece)
        yield piece, spans, _is_clean(piece, spans, latest_ns)


def _salvaged(pieces: Iterable[tuple[bytes, list[bytes], bool]], latest_ns: int) -> Decoded:
    """The pieces less the spans that break a rule."""
    report = Report()
    payloads: list[tuple[bytes, int]] = []
    for piece, spans, clean in pieces:
        if clean:
            report.accept(len(spans))
            payloads.append((piece, len(spans)))
            continue
        bad = _bad(spans, latest_ns, report)
        if len(bad) < len(spans):
            payloads.append((without(piece, bad) if bad else piece, len(spans) - len(bad)))
    accepted = sum(spans for _, spans in payloads)
    return Decoded(tuple(payloads), accepted, report.rejected, report.message(), report.trace_id)


def _have_good_links(piece: bytes, merged: ShapeSpan) -> bool:
    if not merged.HasField("links"):
        return True
    links = LinkCensus.FromString(piece).resource_spans.scope_spans.spans.links
    check_density(len(links), len(piece), "links")
    return link_fault_of(map(_ids, map(Link.FromString, links))) is None


def _bad(spans: list[bytes], latest_ns: int, report: Report) -> set[int]:
    """The indexes of the spans that break a rule."""
    bad = set()
    for index, serialized in enumerate(spans):
        span = Span.FromString(serialized)
        reason = fault_of(
            span.trace_id,
            span.span_id,
            span.parent_span_id,
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            map(_ids, span.links),
            latest_ns,
        )
        if reason is None:
            report.accept()
        else:
            report.refuse(span.name.decode(errors="replace"), span.trace_id, reason)
            bad.add(index)
    return bad


def _ids(link: Link) -> tuple[bytes, bytes]:
    return link.trace_id, link.span_id
