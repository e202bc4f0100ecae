"""From the body of a request to payloads that can be delivered as they are."""

from __future__ import annotations

import sys

from gateway.otlp.json import decode_json
from gateway.otlp.media import Decoded, Media
from gateway.otlp.oversize import without_oversized
from gateway.otlp.protobuf import decode_protobuf
from gateway.otlp.rules import DAY_NS

__all__ = ["Decoded", "Media", "decode"]


def decode(
    body: bytes,
    media: Media,
    *,
    now_ns: int,
    max_spans: int,
    max_bytes: int,
    max_span_bytes: int = sys.maxsize,
) -> Decoded:
    """Check an ExportTraceServiceRequest span by span.

    Bad spans are cut out and told in ``rejected`` and ``message``, the others go on, in payloads
    of at most ``max_spans`` spans and ``max_bytes`` bytes (a span larger than that stays alone, and
    is refused above ``max_span_bytes``, which is not less).
    ``now_ns`` is the time in nanoseconds since 1970.

    Raises Refused: MALFORMED for what is no such request or would cost far more than its size,
    TOO_DEEP for values nested deeper than 64 levels, TOO_LARGE where a request must be split and
    its resources are too large to be repeated.
    """
    read = decode_json if media is Media.JSON else decode_protobuf
    decoded = read(body, now_ns + DAY_NS, max_spans, max_bytes)
    if len(body) <= max_span_bytes:  # JSON is never shorter than what it becomes
        return decoded
    return without_oversized(decoded, max_span_bytes)
