"""What a client is told that comes without TLS to a port with a certificate.

Nothing that it sends is used, a token least of all: it has already been read by whoever listens on
the way, and a client that is served all the same is never put right.
"""

from __future__ import annotations

from gateway.errors import Cause, Refused
from gateway.otlp.media import Media
from gateway.receivers.books import Sender
from gateway.receivers.frontdoor.http2.headers import RequestHead, encode
from gateway.receivers.frontdoor.http2.speaker import Http2
from gateway.receivers.frontdoor.http2.streams import Call, Stream
from gateway.receivers.frontdoor.rpc import metadata
from gateway.receivers.frontdoor.rpc.calls import RefusedCall
from gateway.receivers.frontdoor.rpc.status import tell
from gateway.receivers.frontdoor.wire import Timing
from gateway.receivers.ingest import Ingest
from gateway.receivers.replies import Reply

_MESSAGE = "this port takes TLS only; use https:// in the address, and no insecure=True"
_TEXT = (_MESSAGE + "\n").encode()
_HTTP1_ANSWER = (
    b"HTTP/1.1 426 Upgrade Required\r\n"
    b"Upgrade: TLS/1.2, HTTP/1.1\r\n"
    b"Connection: close, Upgrade\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_TEXT), _TEXT)
)
_HTTP2_HEAD = encode(
    [
        (":status", "426"),
        ("content-length", str(len(_TEXT))),
        ("content-type", "text/plain; charset=utf-8"),
    ]
)


class TlsOnly:
    """Refuses whatever is asked in plain."""

    def __init__(self, ingest: Ingest, timing: Timing) -> None:
        self._books = ingest.books
        self._timing = timing

    def http1(self, peer: str) -> bytes:
        """The answer to a request, after which the connection ends."""
        self._refused("http", peer)
        return _HTTP1_ANSWER

    def request(self, speaker: Http2, stream: Stream, head: RequestHead, now: float) -> Call:
        """A call of HTTP/2 (an ``Application``)."""
        answer = self._grpc if _is_grpc(head) else self._plain
        return RefusedCall(lambda: answer(speaker, stream), now + self._timing.body_idle_s)

    def _grpc(self, speaker: Http2, stream: Stream) -> None:
        reply = Reply.of_refusal(Media.PROTOBUF, self._refused("grpc", speaker.wire.peer))
        tell(speaker, stream, reply.grpc_code, reply.grpc_message, reply.body)

    def _plain(self, speaker: Http2, stream: Stream) -> None:
        self._refused("http", speaker.wire.peer)
        speaker.out.begin(stream, _HTTP2_HEAD)
        speaker.out.send_last(stream, _TEXT)

    def _refused(self, transport: str, peer: str) -> Refused:
        refused = Refused(Cause.PLAINTEXT, _MESSAGE)
        self._books.refusal(Sender(transport, peer), refused)
        return refused


def _is_grpc(head: RequestHead) -> bool:
    return metadata.is_grpc(metadata.first(head.fields, "content-type") or "")
