"""Methods other than Export: one message each, answered by an asyncio handler in a task."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from gateway.errors import GrpcCode, Refused
from gateway.otlp.encoding import inflate
from gateway.receivers.admission import Reservation
from gateway.receivers.frontdoor.http2.frames import ErrorCode
from gateway.receivers.frontdoor.http2.headers import RequestHead
from gateway.receivers.frontdoor.http2.speaker import Http2
from gateway.receivers.frontdoor.http2.streams import Stream
from gateway.receivers.frontdoor.rpc import metadata
from gateway.receivers.frontdoor.rpc.messages import COMPRESSED, PREFIX_BYTES, frame_prefix
from gateway.receivers.frontdoor.rpc.status import tell
from gateway.receivers.frontdoor.wire import Timing
from gateway.receivers.methods import FAILED, MAX_REQUEST_BYTES, Aborted, Handler, Trailers
from gateway.telemetry.logs import facts

logger = logging.getLogger(__name__)

_PIECE_BYTES = 64 * 2**10
"""Of an answer that are given to the wire at once; between pieces it may say that it is full."""

_CANCELLED_BY_PEER = "the client left"

Spawn = Callable[[Coroutine[Any, Any, None], str], None]


class _Context:
    """The ``Context`` of one call."""

    def __init__(
        self,
        head: RequestHead,
        peer: str,
        timeout_s: float,
        write: Callable[[bytes], Coroutine[Any, Any, None]],
    ) -> None:
        self.trailers: Trailers = ()
        self.peer = peer
        self.write = write
        self._fields = head.fields
        self._deadline = time.monotonic() + timeout_s

    @property
    def metadata(self) -> metadata.Metadata:
        return [pair for pair in self._fields if not pair[0].endswith("-bin")]

    def time_remaining(self) -> float | None:
        left_s = self._deadline - time.monotonic()
        return None if math.isinf(left_s) else max(0.0, left_s)


class HandlerCall:
    """One call of a handler: gathers the request, then runs the handler in a task."""

    def __init__(
        self,
        handler: Handler,
        speaker: Http2,
        stream: Stream,
        head: RequestHead,
        *,
        spawn: Spawn,
        held: Reservation,
        timing: Timing,
        timeout_s: float,
    ) -> None:
        """``timeout_s`` is infinite where the client has set no deadline."""
        self._handler = handler
        self._spawn = spawn
        self._held = held
        self._speaker = speaker
        self._stream: Stream | None = stream
        self._head = head
        self._timing = timing
        self._deadline = speaker.now + timeout_s
        self._context = _Context(head, speaker.wire.peer, timeout_s, self._write)
        self._began = speaker.now
        self._heard_at: float | None = speaker.now
        """When the last piece of the request came; None once it is whole."""
        self._body = bytearray()
        self._task: asyncio.Task[Any] | None = None
        self._writable = asyncio.Event()
        self._in_message = False
        """True while a part of a message is sent and the rest is not."""

    def data(self, data: bytes, *, ended: bool) -> None:
        if self._heard_at is None or self._stream is None:
            return
        self._heard_at = self._speaker.now
        try:
            self._take(data)
            if ended:
                self._heard_at = None
                self._spawn(self._run(self._read_message()), self._head.path)
        except Aborted as aborted:
            self._finish(aborted.code, aborted.message)
        except Refused as refused:
            self._finish(refused.cause.value.grpc, refused.message)

    def writable(self) -> None:
        self._writable.set()

    def cancel(self) -> None:
        self._stream = None
        self._close()

    def check(self, now: float) -> None:
        if self._stream is None:
            return
        if now > self._deadline:
            self._finish(GrpcCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        elif self._heard_at is not None and self._is_too_slow(now, self._heard_at):
            self._finish(GrpcCode.DEADLINE_EXCEEDED, "the request did not come in time")

    def _is_too_slow(self, now: float, heard_at: float) -> bool:
        """Nobody has shown a token yet, and what has come is held against the memory budget."""
        timing = self._timing
        return now - heard_at > timing.body_idle_s or now - self._began > timing.body_s

    def _take(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > MAX_REQUEST_BYTES + PREFIX_BYTES:
            message = f"the request is larger than {MAX_REQUEST_BYTES} bytes"
            raise Aborted(GrpcCode.RESOURCE_EXHAUSTED, message)
        self._held.grow(len(self._body))

    def _read_message(self) -> bytes:
        """The one message of the request. Raises Aborted and Refused."""
        body = bytes(self._body)
        self._body.clear()
        if len(body) < PREFIX_BYTES or PREFIX_BYTES + int.from_bytes(body[1:5], "big") != len(body):
            message = "this method takes exactly one message, sent whole"
            raise Aborted(GrpcCode.UNIMPLEMENTED, message)
        flag, message_bytes = body[0], body[PREFIX_BYTES:]
        if flag == 0:
            return message_bytes
        encoding = metadata.first(self._head.fields, "grpc-encoding")
        if flag != COMPRESSED or encoding in (None, "identity"):
            message = "Compression bit set but no encoding configured"
            raise Aborted(GrpcCode.INTERNAL, message)
        return inflate(message_bytes, encoding or "", max_bytes=MAX_REQUEST_BYTES)

    async def _run(self, request: bytes) -> None:
        if self._stream is None:
            return
        self._task = asyncio.current_task()
        try:
            await self._handler(request, self._context)
            self._finish(GrpcCode.OK, "", self._context.trailers)
        except Aborted as aborted:
            self._finish(aborted.code, aborted.message, aborted.trailers)
        except asyncio.CancelledError:
            self._finish(GrpcCode.CANCELLED, _CANCELLED_BY_PEER)
            raise
        except Exception:
            logger.exception("call failed", extra=facts(path=self._head.path))
            self._finish(GrpcCode.INTERNAL, FAILED)

    async def _write(self, message: bytes) -> None:
        self._in_message = True
        for piece in _pieces(message):
            stream = self._stream
            if stream is not None:
                if not stream.begun:
                    self._speaker.out.begin(stream, metadata.BEGIN)
                self._writable.clear()
                self._speaker.out.send(stream, piece)
                await self._writable.wait()
            # The wire writes now, and learns whether the peer reads. This is also where a call
            # that is over ends its handler.
            await asyncio.sleep(0)
        self._in_message = False

    def _finish(self, code: int, message: str, trailers: Trailers = ()) -> None:
        """End the call with this status, unless it is over."""
        stream, self._stream = self._stream, None
        if stream is not None:
            more = metadata.encoded(trailers)
            if self._in_message:
                self._speaker.reset(stream, ErrorCode.CANCEL)
            elif stream.begun:
                self._speaker.out.end(stream, metadata.trailers(code, message, more=more))
            else:
                tell(self._speaker, stream, code, message, more=more)
        self._close()

    def _close(self) -> None:
        self._body.clear()
        self._held.release()
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()


def _pieces(message: bytes) -> Iterator[bytes]:
    """The message as it is framed; not copied as a whole, since it may be large."""
    yield frame_prefix(message) + message[:_PIECE_BYTES]
    for start in range(_PIECE_BYTES, len(message), _PIECE_BYTES):
        yield message[start : start + _PIECE_BYTES]
