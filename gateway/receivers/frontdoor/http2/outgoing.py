"""What goes out on one connection: answers, and the windows that they wait for; pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from gateway.receivers.frontdoor.http2 import frames
from gateway.receivers.frontdoor.http2.frames import ConnectionFault, ErrorCode, StreamFault
from gateway.receivers.frontdoor.http2.streams import Stream
from gateway.receivers.frontdoor.wire import Wire


class Answer(NamedTuple):
    """A small answer, made once and sent on many streams."""

    block: bytes
    data: bytes
    trailers: bytes
    pieces: tuple[bytes, ...]
    """The frames of it, cut where their stream id stands."""

    @classmethod
    def of(cls, block: bytes, data: bytes, trailers: bytes) -> Answer:
        """Each part fits into the smallest frame that a peer may ask for."""
        end = frames.END_HEADERS | frames.END_STREAM
        whole = (
            frames.frame(frames.HEADERS, frames.END_HEADERS, 0, block),
            frames.frame(frames.DATA, 0, 0, data),
            frames.frame(frames.HEADERS, end, 0, trailers),
        )
        tails = (b"", *(frame[9:] for frame in whole))
        heads = (*(frame[:5] for frame in whole), b"")
        pieces = tuple(tail + head for tail, head in zip(tails, heads, strict=True))
        return cls(block, data, trailers, pieces)


class Outgoing:
    """Sends what windows allow, and the rest later. ``ended`` is told of each answer's end."""

    def __init__(self, wire: Wire, ended: Callable[[Stream], None]) -> None:
        self._wire = wire
        self._ended = ended
        self._left = frames.DEFAULT_WINDOW
        """Bytes that we may still send on this connection."""
        self._max_frame_bytes = frames.DEFAULT_MAX_FRAME_BYTES
        self._blocked: dict[int, Stream] = {}
        self.stream_window = frames.DEFAULT_WINDOW
        """Bytes that we may send on a new stream."""
        self.now = 0.0

    # -- answers ---------------------------------------------------------------------------------

    def answer(self, stream: Stream, answer: Answer) -> None:
        """All of an answer at once."""
        size = len(answer.data)
        if stream.send_left < size or self._left < size:
            self.begin(stream, answer.block)
            stream.trailers = answer.trailers
            self.send(stream, answer.data)
            return
        self._left -= size
        self._wire.write(stream.id.to_bytes(4, "big").join(answer.pieces))
        self._ended(stream)

    def respond(self, stream: Stream, block: bytes) -> None:
        """All of an answer in one header block."""
        self._write_block(stream, block, ended=True)
        self._ended(stream)

    def begin(self, stream: Stream, block: bytes) -> None:
        """The header block of an answer that has a body."""
        stream.begun = True
        self._write_block(stream, block, ended=False)

    def send(self, stream: Stream, data: bytes) -> None:
        """Queue a piece of the body; its call is told when all that was queued is sent."""
        if stream.outbox is None:
            stream.outbox = deque()
        stream.outbox.append(memoryview(data))
        self._pump(stream)

    def send_last(self, stream: Stream, data: bytes) -> None:
        """Queue the last piece of a body without trailers."""
        stream.trailers = b""
        self.send(stream, data)

    def end(self, stream: Stream, trailers: bytes) -> None:
        """The answer ends with these trailers, once its body is sent."""
        stream.trailers = trailers
        self._pump(stream)

    def forget(self, stream: Stream) -> None:
        """The stream waits for nothing any more."""
        self._blocked.pop(stream.id, None)

    # -- windows ---------------------------------------------------------------------------------

    def grow(self, increment: int) -> None:
        """The window of the connection. Raises ConnectionFault."""
        if not increment:
            message = "a window grows by at least 1"
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, message)
        self._left += increment
        if self._left > frames.MAX_WINDOW:
            raise _overflow()
        self.pump_all()

    def grow_stream(self, stream: Stream, increment: int) -> None:
        """The window of one stream. Raises StreamFault."""
        stream.send_left += increment
        if not increment or stream.send_left > frames.MAX_WINDOW:
            code = ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR
            raise StreamFault(code, "an increment that is no such")
        if stream.blocked_since is not None:
            self._pump(stream)

    def set_stream_window(self, size: int, streams: Iterable[Stream]) -> None:
        """The window that streams begin with; the change holds for living ones too, and may make
        theirs negative (RFC 9113, section 6.9.2). Raises ConnectionFault.
        """
        if size > frames.MAX_WINDOW:
            raise _overflow()
        more = size - self.stream_window
        self.stream_window = size
        for stream in streams:
            stream.send_left += more
            if stream.send_left > frames.MAX_WINDOW:
                raise _overflow()

    def set_frame_size(self, size: int) -> None:
        """The largest frame that the peer takes. Raises ConnectionFault."""
        if not frames.DEFAULT_MAX_FRAME_BYTES <= size < 2**24:
            message = "MAX_FRAME_SIZE is from 2^14 to 2^24 - 1"
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, message)
        self._max_frame_bytes = size

    def pump_all(self) -> None:
        """Send what waited for the connection."""
        for stream in tuple(self._blocked.values()):
            self._pump(stream)

    def stalled(self, since: float) -> list[Stream]:
        """Streams whose peer has taken nothing since then."""
        return [
            stream
            for stream in self._blocked.values()
            if stream.blocked_since is not None and stream.blocked_since < since
        ]

    # -- inside ----------------------------------------------------------------------------------

    def _pump(self, stream: Stream) -> None:
        """Send of a stream what windows allow; then tell its call, or end it."""
        outbox = stream.outbox
        while outbox:
            room = min(stream.send_left, self._left, self._max_frame_bytes)
            if room <= 0 or self._wire.paused:
                if stream.blocked_since is None:
                    stream.blocked_since = self.now
                    self._blocked[stream.id] = stream
                return
            piece = outbox.popleft()
            if len(piece) > room:
                outbox.appendleft(piece[room:])
                piece = piece[:room]
            stream.send_left -= len(piece)
            self._left -= len(piece)
            ended = stream.trailers == b"" and not outbox
            self._wire.write(frames.data_frame(stream.id, bytes(piece), ended=ended))
            self.forget(stream)
            stream.blocked_since = None
        if stream.trailers is None:
            if outbox is not None:
                stream.call.writable()
            return
        if stream.trailers:
            self._write_block(stream, stream.trailers, ended=True)
        self._ended(stream)

    def _write_block(self, stream: Stream, block: bytes, *, ended: bool) -> None:
        size = self._max_frame_bytes
        self._wire.write(frames.header_frames(stream.id, block, ended=ended, max_frame_bytes=size))


def _overflow() -> ConnectionFault:
    return ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window of more than 2^31 - 1 bytes")
