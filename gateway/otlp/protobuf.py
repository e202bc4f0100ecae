"""Requests in protobuf: checked through narrow views, and passed on as the bytes they came in."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError

from gateway.otlp.clean import are_clean
from gateway.otlp.depth import check_depth
from gateway.otlp.fields import malformed
from gateway.otlp.media import Decoded
from gateway.otlp.report import Report
from gateway.otlp.rules import fault_of, link_fault_of
from gateway.otlp.wire import check_density, check_fields, check_path, split, without
from proto_stubs.view_pb2 import Census, Link, LinkCensus, Shape, ShapeSpan, Span

_PIECE_BYTES = 4 * 1024 * 1024
"""Most that is looked at in one go, since a view of hostile data takes up to twenty times its size;
only a single span may be larger.
"""


def decode_protobuf(body: bytes, *, latest_ns: int, max_spans: int, max_bytes: int) -> Decoded:
    """See ``gateway.otlp.decode.decode``; ``latest_ns`` is the last start that is taken."""
    report = Report()
    payloads: list[tuple[bytes, int]] = []
    accepted = 0
    try:
        for piece, spans in _pieces(body, max_spans, min(max_bytes, _PIECE_BYTES)):
            good = _good(piece, spans, latest_ns, report)
            if good[1]:
                payloads.append(good)
                accepted += good[1]
    except DecodeError as error:
        malformed(str(error))
    return Decoded(tuple(payloads), accepted, report.rejected, report.message(), report.trace_id)


def _pieces(body: bytes, max_spans: int, max_bytes: int) -> Iterator[tuple[bytes, list[bytes]]]:
    """The body, split if it is larger than the limits; each piece with its serialized spans."""
    if len(body) <= max_bytes:
        spans = Census.FromString(body).resource_spans.scope_spans.spans[:]
        if len(spans) <= max_spans:
            yield body, spans
            return
    for piece, _ in split(body, max_spans=max_spans, max_bytes=max_bytes):
        yield piece, Census.FromString(piece).resource_spans.scope_spans.spans[:]


def _good(piece: bytes, spans: list[bytes], latest_ns: int, report: Report) -> tuple[bytes, int]:
    """The piece less its bad spans, and how many are left."""
    if len(piece) > _PIECE_BYTES:
        check_fields(spans[0])
    check_density(len(spans), len(piece), "spans")
    shape = Shape.FromString(piece)
    check_depth(shape)
    if not spans:
        check_path(piece)
        return piece, 0
    columns = shape.resource_spans.scope_spans.spans
    if are_clean(spans, columns, latest_ns) and _have_good_links(piece, columns):
        report.accept(len(spans))
        return piece, len(spans)
    bad = _bad(spans, latest_ns, report)
    if len(bad) == len(spans):
        return b"", 0
    return without(piece, bad) if bad else piece, len(spans) - len(bad)


def _have_good_links(piece: bytes, columns: ShapeSpan) -> bool:
    if not columns.HasField("links"):
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
