"""OTLP's Export: one message, fed to ``Ingest`` as it comes."""

from __future__ import annotations

from typing import NamedTuple

from gateway.errors import Cause, GrpcCode, Refused
from gateway.otlp.media import Media
from gateway.receivers import whole
from gateway.receivers.books import Sender
from gateway.receivers.frontdoor.gather import Gathered
from gateway.receivers.frontdoor.http2.outgoing import Answer
from gateway.receivers.frontdoor.http2.speaker import Http2
from gateway.receivers.frontdoor.http2.streams import Stream
from gateway.receivers.frontdoor.rpc import metadata
from gateway.receivers.frontdoor.rpc.messages import COMPRESSED, PREFIX_BYTES, frame_message
from gateway.receivers.frontdoor.rpc.status import tell
from gateway.receivers.frontdoor.wire import Timing
from gateway.receivers.headers import CONTENT_TYPES
from gateway.receivers.ingest import Exchange, Head, Ingest
from gateway.receivers.replies import Reply

_CLEAN = Answer.of(metadata.BEGIN, frame_message(b""), metadata.OK_TRAILERS)
"""By far the most frequent answer: every span was taken."""


class ExportHead(NamedTuple):
    """What the headers of an Export say; made once for calls with the same headers."""

    plain: Head
    compressed: Head | None
    """For a message with the flag; None where no encoding was named."""
    passed: whole.Pass | None
    """For a message without the flag that comes whole."""


def read_head(ingest: Ingest, fields: metadata.Metadata, path: str, peer: str) -> ExportHead:
    encoding = metadata.first(fields, "grpc-encoding")
    plain = Head(
        sender=Sender("grpc", peer, metadata.first(fields, "x-request-id")),
        method="POST",
        path=path,
        content_type=CONTENT_TYPES[Media.PROTOBUF],
        tenants=tuple(value for name, value in fields if name == "x-scope-orgid"),
        authorization=tuple(value for name, value in fields if name == "authorization"),
    )
    if encoding in (None, "identity"):
        return ExportHead(plain, None, whole.judge(ingest, plain))
    compressed = plain._replace(content_encoding=encoding or "")
    return ExportHead(plain, compressed, whole.judge(ingest, plain))


class ExportCall:
    """One call. What comes after its message is ignored, as grpcio's server does."""

    __slots__ = (
        "_began",
        "_deadline",
        "_exchange",
        "_gathered",
        "_head",
        "_heard_at",
        "_ingest",
        "_left",
        "_prefix",
        "_speaker",
        "_stream",
        "_timing",
    )

    def __init__(
        self,
        ingest: Ingest,
        speaker: Http2,
        stream: Stream,
        head: ExportHead,
        *,
        timing: Timing,
        deadline: float,
    ) -> None:
        self._ingest = ingest
        self._speaker = speaker
        self._stream: Stream | None = stream
        self._head = head
        self._timing = timing
        self._began = self._heard_at = speaker.now
        self._deadline = deadline
        self._exchange: Exchange | None = None
        self._prefix = b""
        self._left = -1
        """Bytes of the message still to come; -1 while its length is not known."""

    def data(self, data: bytes, *, ended: bool) -> None:
        if self._stream is None or not self._left:
            return
        if self._left > 0:
            self._feed(data, ended=ended)
            return
        if self._prefix:
            data = self._prefix + data
        if len(data) < PREFIX_BYTES:
            self._prefix = data
            if ended:
                self._refuse(Cause.MALFORMED, "the call carried no message")
            return
        length = int.from_bytes(data[1:PREFIX_BYTES], "big")
        head = self._read_flag(data[0])
        if head is None:
            return
        stop = PREFIX_BYTES + length
        if len(data) >= stop:
            self._left = 0
            self._take_whole(head, data[PREFIX_BYTES:stop])
            return
        self._left = length
        self._gathered = Gathered()
        self._exchange = self._ingest.begin(head._replace(content_length=length), self._answer)
        self._feed(data[PREFIX_BYTES:], ended=ended)

    def writable(self) -> None:
        """Nothing waits for this: the answer is queued whole."""

    def cancel(self) -> None:
        self._stream = None
        if self._exchange is not None:
            self._exchange.abandon()

    def check(self, now: float) -> None:
        if self._stream is None:
            return
        if now > self._deadline:
            self._tell(GrpcCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        elif self._left and self._is_too_slow(now):
            timing = self._timing
            self._refuse(
                Cause.SLOW_CLIENT,
                f"the message did not come in time: {timing.body_idle_s:g} s without a byte or"
                f" {timing.body_s:g} s in all; send smaller batches or compress them",
            )

    def _read_flag(self, flag: int) -> Head | None:
        """The head for this flag; None if the call was ended by it."""
        if flag == 0:
            return self._head.plain
        if flag != COMPRESSED:
            self._tell(GrpcCode.INTERNAL, f"a message with the flag {flag}, which is not defined")
        elif self._head.compressed is None:
            self._tell(GrpcCode.INTERNAL, "Compression bit set but no encoding configured")
        else:
            return self._head.compressed
        return None

    def _take_whole(self, head: Head, message: bytes) -> None:
        passed = self._head.passed if head is self._head.plain else None
        if passed is not None and whole.take(self._ingest, passed, message, self._answer):
            return
        self._exchange = exchange = self._ingest.begin(head, self._answer)
        exchange.feed(message)
        exchange.end()

    def _feed(self, data: bytes, *, ended: bool) -> None:
        """Feed a piece of a message that comes in several."""
        exchange = self._exchange
        if exchange is None:
            return
        self._heard_at = self._speaker.now
        self._left -= len(data)
        if self._left <= 0:
            excess = -self._left
            self._left = 0
            exchange.feed(self._gathered.add(data[: len(data) - excess]))
            exchange.feed(self._gathered.rest())
            exchange.end()
            return
        if piece := self._gathered.add(data):
            exchange.feed(piece)
        if ended:
            message = "the message is shorter than its prefix says; send it whole"
            exchange.refuse(Refused(Cause.MALFORMED, message))

    def _is_too_slow(self, now: float) -> bool:
        idle_s = self._timing.body_idle_s
        return now - self._heard_at > idle_s or now - self._began > self._timing.body_s

    def _refuse(self, cause: Cause, message: str) -> None:
        exchange = self._exchange
        if exchange is None:
            exchange = self._ingest.begin(self._head.plain, self._answer)
        exchange.refuse(Refused(cause, message))

    def _answer(self, reply: Reply) -> None:
        stream = self._stream
        if stream is None:  # the client has left, or its deadline has passed
            return
        self._stream = None
        refused = reply.refused
        if refused is not None:
            tell(self._speaker, stream, reply.grpc_code, reply.grpc_message, reply.body)
        elif not reply.body:
            self._speaker.out.answer(stream, _CLEAN)
        else:
            data = frame_message(reply.body)
            self._speaker.out.answer(stream, Answer.of(_CLEAN.block, data, _CLEAN.trailers))

    def _tell(self, code: int, message: str) -> None:
        """An answer of the call's own, which ``Ingest`` need not know of."""
        stream, self._stream = self._stream, None
        if stream is not None:
            tell(self._speaker, stream, code, message)
        if self._exchange is not None:
            self._exchange.abandon()
