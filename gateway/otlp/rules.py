"""The rules a span must keep, once, for both encodings.

They are what Tempo needs to store a span and find it again: a bad id makes Tempo refuse everything
sent along with it, and a time outside of reason spoils the time range of a whole block.
"""

from __future__ import annotations

from collections.abc import Iterable

DAY_NS = 24 * 60 * 60 * 10**9
"""How far a start may lie ahead of the clock."""

ZERO_TRACE_ID = bytes(16)
ZERO_SPAN_ID = bytes(8)

REMEDIES = {
    "trace_id_length": "a trace id has exactly 16 bytes (32 hex digits in JSON)",
    "trace_id_zero": "a trace id is not all zero; make 16 random bytes",
    "span_id_length": "a span id has exactly 8 bytes (16 hex digits in JSON)",
    "span_id_zero": "a span id is not all zero; make 8 random bytes",
    "parent_span_id_length": "a parent span id has 8 bytes, or is left out for a root span",
    "link_trace_id": "a link needs the 16-byte trace id, not all zero, of the span it points to",
    "link_span_id": "a link needs the 8-byte span id, not all zero, of the span it points to",
    "start_zero": "set start_time_unix_nano, in nanoseconds since 1970",
    "start_in_future": "the start is more than a day ahead; times are nanoseconds since 1970, and"
    " the sender's clock must be right",
    "end_before_start": "set end_time_unix_nano, in nanoseconds since 1970, not before the start",
}
"""Each reason for which a span is refused, with what the sender must change."""


def fault_of(  # noqa: PLR0917 - a span's fields in OTLP's order
    trace_id: bytes,
    span_id: bytes,
    parent_span_id: bytes,
    start_ns: int,
    end_ns: int,
    links: Iterable[tuple[bytes, bytes]],
    latest_ns: int,
) -> str | None:
    """The first rule that a span breaks (a key of REMEDIES), or None for a good span.

    ``links`` are (trace id, span id); an absent id is empty, an absent time 0.
    """
    if len(trace_id) != 16:
        return "trace_id_length"
    if trace_id == ZERO_TRACE_ID:
        return "trace_id_zero"
    if len(span_id) != 8:
        return "span_id_length"
    if span_id == ZERO_SPAN_ID:
        return "span_id_zero"
    if len(parent_span_id) not in (0, 8):
        return "parent_span_id_length"
    if start_ns == 0:
        return "start_zero"
    if start_ns > latest_ns:
        return "start_in_future"
    if end_ns < start_ns:
        return "end_before_start"
    return link_fault_of(links)


def link_fault_of(links: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The first rule that one of these links breaks, or None."""
    for trace_id, span_id in links:
        if len(trace_id) != 16 or trace_id == ZERO_TRACE_ID:
            return "link_trace_id"
        if len(span_id) != 8 or span_id == ZERO_SPAN_ID:
            return "link_span_id"
    return None
