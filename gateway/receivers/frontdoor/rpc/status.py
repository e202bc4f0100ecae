"""How a call that brings no messages is answered."""

from __future__ import annotations

from gateway.receivers.frontdoor.http2.speaker import Http2
from gateway.receivers.frontdoor.http2.streams import State, Stream
from gateway.receivers.frontdoor.rpc import metadata


def tell(
    speaker: Http2,
    stream: Stream,
    code: int,
    message: str = "",
    details: bytes = b"",
    *,
    more: tuple[tuple[str, str], ...] = (),
) -> None:
    """End the call with this status, before anything else was sent on it."""
    if stream.state is State.OPEN:
        # RST_STREAM follows, to stop the client. Where it comes behind an answer of one header
        # block, grpcio's clients take it for the answer.
        speaker.out.begin(stream, metadata.BEGIN)
        speaker.out.end(stream, metadata.trailers(code, message, details, more))
    else:
        speaker.out.respond(stream, metadata.trailers_only(code, message, details, more))
