"""Refuses spans that no delivery could carry, where the sender can still be told.

A payload of more than one span is split when it is too large for the backend. A single span is
not: the backend would refuse it for good, long after its sender was told OK.
"""

from __future__ import annotations

from gateway.otlp.media import Decoded
from proto_stubs.view_pb2 import Census, Span

SPAN_TOO_LARGE = "span_too_large"
_SHOWN_NAME_BYTES = 64
MIB = 2**20


def without_oversized(decoded: Decoded, max_bytes: int) -> Decoded:
    """The request less the spans that take, with their resource and scope, more than ``max_bytes``
    each; they count as rejected.
    """
    large = [
        payload for payload, spans in decoded.payloads if spans == 1 and len(payload) > max_bytes
    ]
    if not large:
        return decoded
    name, trace_id = _first_span(large[0])
    message = (
        f"{len(large)} spans refused: {SPAN_TOO_LARGE}. First {name!r}:"
        f" it has {len(large[0]) / MIB:.1f} MiB with its resource, and a span may have"
        f" {max_bytes / MIB:g} MiB (GATEWAY_MAX_SPAN_BYTES); shorten its attributes and events"
    )
    return decoded._replace(
        payloads=tuple(
            (payload, spans)
            for payload, spans in decoded.payloads
            if spans > 1 or len(payload) <= max_bytes
        ),
        accepted=decoded.accepted - len(large),
        rejected={**decoded.rejected, SPAN_TOO_LARGE: len(large)},
        message="; ".join(filter(None, (decoded.message, message))),
        trace_id=decoded.trace_id or trace_id,
    )


def _first_span(payload: bytes) -> tuple[str, str]:
    """Name, cut to a length that can be shown, and trace id in hex."""
    (serialized,) = Census.FromString(payload).resource_spans.scope_spans.spans
    span = Span.FromString(serialized)
    return span.name[:_SHOWN_NAME_BYTES].decode(errors="replace"), span.trace_id.hex()
