"""Which call serves which request."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from gateway.errors import GrpcCode
from gateway.receivers.admission import Reservation
from gateway.receivers.frontdoor.http2.headers import RequestHead, encode
from gateway.receivers.frontdoor.http2.speaker import Http2
from gateway.receivers.frontdoor.http2.streams import Call, Stream
from gateway.receivers.frontdoor.rpc import metadata
from gateway.receivers.frontdoor.rpc.export import ExportCall, ExportHead, read_head
from gateway.receivers.frontdoor.rpc.handlers import HandlerCall, Spawn
from gateway.receivers.frontdoor.rpc.status import tell
from gateway.receivers.frontdoor.wire import Timing
from gateway.receivers.headers import EXPORT_METHOD
from gateway.receivers.ingest import Ingest
from gateway.receivers.methods import Handler
from gateway.receivers.replies import Reply

_Refuse = Callable[[Http2, Stream, RequestHead], None]


class _Memo(NamedTuple):
    """What was made of a head, kept with it."""

    export: ExportHead
    timeout_s: float
    """Until the deadline; infinite where there is none."""
    refuse: _Refuse | None
    """For a call that its headers condemn."""


class RefusedCall:
    """A call that is answered without a look at what it sends.

    The answer waits for the first bytes all the same: grpcio's clients report a call that is over
    before they have sent anything as their own failure, and lose the answer.
    """

    def __init__(self, tell: Callable[[], None], patience_until: float) -> None:
        self._tell: Callable[[], None] | None = tell
        self._until = patience_until

    def data(self, data: bytes, *, ended: bool) -> None:  # noqa: ARG002 - as every Call
        self._answer()

    def writable(self) -> None:
        """Nothing waits for this."""

    def cancel(self) -> None:
        self._tell = None

    def check(self, now: float) -> None:
        if now > self._until:
            self._answer()

    def _answer(self) -> None:
        tell, self._tell = self._tell, None
        if tell is not None:
            tell()


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
            head.memo = memo = self._read(speaker, head)
        if memo.refuse is not None:
            refuse = memo.refuse
            until = now + self._timing.body_idle_s
            return RefusedCall(lambda: refuse(speaker, stream, head), until)
        if head.path == EXPORT_METHOD:
            deadline = now + memo.timeout_s
            return ExportCall(
                self._ingest, speaker, stream, memo.export, timing=self._timing, deadline=deadline
            )
        return HandlerCall(
            self._handlers[head.path],
            speaker,
            stream,
            head,
            spawn=self._spawn,
            held=Reservation(self._ingest.budget),
            timing=self._timing,
            timeout_s=memo.timeout_s,
        )

    def _read(self, speaker: Http2, head: RequestHead) -> _Memo:
        export = read_head(self._ingest, head.fields, head.path, speaker.wire.peer)
        timeout = metadata.first(head.fields, "grpc-timeout")
        timeout_s = math.inf
        refuse: _Refuse | None = None
        try:
            timeout_s = math.inf if timeout is None else metadata.read_timeout(timeout)
        except ValueError:
            refuse = _refuse_timeout
        if timeout_s <= 0:
            refuse = _refuse_late
        elif head.path != EXPORT_METHOD and head.path not in self._handlers:
            refuse = self._refuse_path
        if head.method != "POST":
            refuse = _refuse_method
        if not metadata.is_grpc(metadata.first(head.fields, "content-type") or ""):
            refuse = _refuse_plain
        return _Memo(export, timeout_s, refuse)

    def _refuse_path(self, speaker: Http2, stream: Stream, head: RequestHead) -> None:
        plain = read_head(self._ingest, head.fields, head.path, speaker.wire.peer).plain
        self._ingest.begin(plain, lambda reply: _tell_reply(speaker, stream, reply))


def _tell_reply(speaker: Http2, stream: Stream, reply: Reply) -> None:
    tell(speaker, stream, reply.grpc_code, reply.grpc_message, reply.body)


def _refuse_timeout(speaker: Http2, stream: Stream, _head: RequestHead) -> None:
    tell(speaker, stream, GrpcCode.INTERNAL, "Error parsing 'grpc-timeout' metadata")


def _refuse_late(speaker: Http2, stream: Stream, _head: RequestHead) -> None:
    tell(speaker, stream, GrpcCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


def _refuse_method(speaker: Http2, stream: Stream, _head: RequestHead) -> None:
    speaker.out.respond(stream, _plain_head(405, 0, ("allow", "POST")))


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
        speaker.out.respond(stream, _plain_head(status, 0))
        return
    speaker.out.begin(stream, _plain_head(status, len(text)))
    speaker.out.send_last(stream, text.encode())


def _plain_head(status: int, size: int, *more: tuple[str, str]) -> bytes:
    fields = [(":status", str(status)), ("content-length", str(size)), *more]
    if size:
        fields.append(("content-type", "text/plain; charset=utf-8"))
    return encode(fields)
