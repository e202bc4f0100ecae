"""Requests in protobuf: checked through narrow views, and passed on as the bytes they came in."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from gateway.otlp.fields import malformed
from gateway.otlp.media import Decoded
from gateway.otlp.report import Report
from gateway.otlp.rules import fault_of
from gateway.otlp.wire import check_density, split, without
from proto_stubs.view_pb2 import Census, Span


def decode_protobuf(body: bytes, *, latest_ns: int, max_spans: int, max_bytes: int) -> Decoded:
    """See ``gateway.otlp.decode.decode``; ``latest_ns`` is the last start that is taken."""
    if len(body) <= max_bytes and len(census(body)) <= max_spans:
        pieces = iter([body])
    else:
        pieces = (piece for piece, _ in split(body, max_spans=max_spans, max_bytes=max_bytes))
    report = Report()
    payloads = [payload for piece in pieces if (payload := _checked(piece, latest_ns, report))[1]]
    accepted = sum(spans for _, spans in payloads)
    return Decoded(
        tuple(payloads), accepted, report.rejected, report.message(), trace_id=report.trace_id
    )


def _checked(piece: bytes, latest_ns: int, report: Report) -> tuple[bytes, int]:
    """The piece less its bad spans, and how many are left."""
    spans = census(piece)
    check_density(len(spans), len(piece))
    bad: set[int] = set()
    for index, serialized in enumerate(spans):
        span = _view(serialized)
        reason = _fault(span, latest_ns)
        if reason is None:
            report.accept()
        else:
            bad.add(index)
            report.refuse(span.name.decode(errors="replace"), span.trace_id, reason)
    if not bad:
        return piece, len(spans)
    return without(piece, bad), len(spans) - len(bad)


def census(body: bytes) -> list[bytes]:
    """All spans in order, serialized."""
    try:
        return Census.FromString(body).resource_spans.scope_spans.spans[:]
    except DecodeError as error:
        malformed(str(error))


def _view(serialized: bytes) -> Span:
    try:
        return Span.FromString(serialized)
    except DecodeError as error:
        malformed(str(error))


def _fault(span: Span, latest_ns: int) -> str | None:
    return fault_of(
        span.trace_id,
        span.span_id,
        span.parent_span_id,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        ((link.trace_id, link.span_id) for link in span.links),
        latest_ns,
    )
