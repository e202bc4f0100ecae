"""Which call serves which request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from gateway.errors import GrpcCode
from gateway.receivers.admission import Reservation
from gateway.receivers.frontdoor.http2.headers import RequestHead, encode
from gateway.receivers.frontdoor.http2.speaker import Http2
from gateway.receivers.frontdoor.http2.streams import Call, Stream
from gateway.receivers.frontdoor.rpc import metadata
from gateway.receivers.frontdoor.rpc.export import ExportCall, ExportHead, read_head
from gateway.receivers.frontdoor.rpc.handlers import Handler, HandlerCall, Spawn
from gateway.receivers.frontdoor.wire import Timing
from gateway.receivers.headers import EXPORT_METHOD
from gateway.receivers.ingest import Ingest
from gateway.receivers.replies import Reply


class _Memo(NamedTuple):
    """What was made of a head, kept with it."""

    export: ExportHead
    timeout_s: float
    """Until the deadline; infinite where there is none."""


class _Over:
    """A call that was answered when it began; what still comes is thrown away."""

    def data(self, data: bytes, *, ended: bool) -> None:
        """Nobody wants it."""

    def writable(self) -> None:
        """Nothing waits."""

    def cancel(self) -> None:
        """Nothing to cancel."""

    def check(self, now: float) -> None:
        """Nothing to wait for."""


_OVER = _Over()


class Calls:
    """The gRPC server: Export by ``Ingest``, other methods by handlers, by path."""

    def __init__(
        self, ingest: Ingest, handlers: Mapping[str, Handler], spawn: Spawn, timing: Timing
    ) -> None:
        self._ingest = ingest
        self._handlers = handlers
        self._spawn = spawn
        self._timing = timing

    def request(self, speaker: Http2, stream: Stream, head: RequestHead, now: float) -> Call:
        memo = head.memo
        if not isinstance(memo, _Memo):
            made = self._read(speaker, stream, head)
            if made is None:
                return _OVER
            head.memo = memo = made
        if memo.timeout_s <= 0:
            block = metadata.trailers_only(GrpcCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
            speaker.respond(stream, block)
            return _OVER
        if head.path == EXPORT_METHOD:
            deadline = now + memo.timeout_s
            return ExportCall(
                self._ingest, speaker, stream, memo.export, timing=self._timing, deadline=deadline
            )
        return self._other(speaker, stream, head, memo)

    def _other(self, speaker: Http2, stream: Stream, head: RequestHead, memo: _Memo) -> Call:
        handler = self._handlers.get(head.path)
        if handler is None:
            self._ingest.begin(memo.export.plain, lambda reply: _tell(speaker, stream, reply))
            return _OVER
        return HandlerCall(
            handler,
            speaker,
            stream,
            head,
            spawn=self._spawn,
            held=Reservation(self._ingest.budget),
            timing=self._timing,
            timeout_s=memo.timeout_s,
        )

    def _read(self, speaker: Http2, stream: Stream, head: RequestHead) -> _Memo | None:
        """None if the call has been answered, since its headers are wrong."""
        if not metadata.is_grpc(metadata.first(head.fields, "content-type") or ""):
            _refuse_plain(speaker, stream, head)
            return None
        if head.method != "POST":
            speaker.respond(stream, _plain_head(405, 0, ("allow", "POST")))
            return None
        timeout = metadata.first(head.fields, "grpc-timeout")
        try:
            timeout_s = math.inf if timeout is None else metadata.read_timeout(timeout)
        except ValueError:
            message = "Error parsing 'grpc-timeout' metadata"
            speaker.respond(stream, metadata.trailers_only(GrpcCode.INTERNAL, message))
            return None
        export = read_head(head.fields, head.path, speaker.wire.peer)
        return _Memo(export, timeout_s)


def _tell(speaker: Http2, stream: Stream, reply: Reply) -> None:
    block = metadata.trailers_only(reply.grpc_code, reply.grpc_message, reply.body)
    speaker.respond(stream, block)


def _refuse_plain(speaker: Http2, stream: Stream, head: RequestHead) -> None:
    """A client that speaks HTTP/2, but not gRPC."""
    if head.method == "POST":
        status = 415
        text = "HTTP/2 is served here for gRPC only, and this is no application/grpc."
    else:
        status = 505
        text = "HTTP/2 is served here for gRPC only."
    text += " Send plain HTTP as HTTP/1.1 to this same port (curl --http1.1).\n"
    if head.method == "HEAD":
        speaker.respond(stream, _plain_head(status, 0))
        return
    speaker.begin(stream, _plain_head(status, len(text)))
    speaker.send_last(stream, text.encode())


def _plain_head(status: int, size: int, *more: tuple[str, str]) -> bytes:
    fields = [(":status", str(status)), ("content-length", str(size)), *more]
    if size:
        fields.append(("content-type", "text/plain; charset=utf-8"))
    return encode(fields)
