"""HTTP/2 as a server speaks it (RFC 9113): bytes in, calls of the application and bytes out; pure.

Nothing that comes in is kept but an unfinished frame or header block: data goes on to its call at
once, and its window is opened again at once, since what the calls keep is held against the memory
budget there. What goes out waits only for windows and for a peer that reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.receivers.frontdoor.http2 import frames
from gateway.receivers.frontdoor.http2.blocks import Block, Blocks
from gateway.receivers.frontdoor.http2.frames import (
    ConnectionFault,
    ErrorCode,
    FrameReader,
    Setting,
    StreamFault,
)
from gateway.receivers.frontdoor.http2.headers import (
    HeaderDecoder,
    RequestHead,
    check_trailers,
)
from gateway.receivers.frontdoor.http2.lifetime import Due, Lifetime
from gateway.receivers.frontdoor.http2.outgoing import Outgoing
from gateway.receivers.frontdoor.http2.patience import Patience
from gateway.receivers.frontdoor.http2.register import Register
from gateway.receivers.frontdoor.http2.streams import Call, Input, State, Stream
from gateway.receivers.frontdoor.wire import Timing, Wire

MAX_STREAMS = 256
"""Requests in hand on one connection; a client keeps further ones back."""
STREAM_WINDOW = 2**20
CONNECTION_WINDOW = 4 * 2**20
"""How far a peer may send ahead of us: enough for 1 Gbit/s at 8 ms, and for many calls at once."""

_MAX_SETTINGS = 64
_TINY_BYTES = 64
"""Data in smaller pieces costs more than it brings."""
_GREETING = frames.settings_frame(
    {
        Setting.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
        Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
        Setting.MAX_FRAME_SIZE: frames.MAX_FRAME_BYTES,
        Setting.MAX_HEADER_LIST_SIZE: 16 * 2**10,
    }
) + frames.window_frame(0, CONNECTION_WINDOW - frames.DEFAULT_WINDOW)

_ARE_YOU_THERE = b"there?\x00\x00"
_DRAINING = b"draining"

# Bound once: looking up a member of an enum costs as much as the rest of a step.
_OPEN, _HALF_CLOSED = State.OPEN, State.HALF_CLOSED
_DATA, _LAST_DATA, _ANSWERED = Input.DATA, Input.LAST_DATA, Input.ANSWERED


class Application(Protocol):
    """What serves the requests."""

    def request(self, speaker: Http2, stream: Stream, head: RequestHead, now: float) -> Call:
        """Begin a call; it may be answered before this returns."""


class Http2:
    """One connection. The preface has been read; what follows it goes to ``receive``."""

    def __init__(
        self, wire: Wire, application: Application, timing: Timing, now: float, *, retire_at: float
    ) -> None:
        self.wire = wire
        self.now = now
        self.out = Outgoing(wire, self._ended)
        self.answers = 0
        """Calls answered since the beginning."""
        self._application = application
        self._timing = timing
        self._life = Lifetime(timing, now, retire_at=retire_at)
        self._reader = FrameReader()
        self._headers = HeaderDecoder()
        self._patience = Patience(now)
        self._blocks = Blocks()
        self._register = Register()
        self._streams = self._register.living
        self._receive_left = CONNECTION_WINDOW
        self._greeted = False
        """The peer has sent its settings."""
        self._final = False
        """The second GOAWAY is sent: no more calls."""
        self._leaving = False
        """The connection ends with its last call."""
        self._over = False
        self._dispatch: dict[int, Callable[[int, int, bytes], None]] = {
            frames.PRIORITY: self._on_priority,
            frames.RST_STREAM: self._on_reset,
            frames.SETTINGS: self._on_settings,
            frames.PUSH_PROMISE: self._on_push_promise,
            frames.PING: self._on_ping,
            frames.GOAWAY: self._on_goaway,
            frames.WINDOW_UPDATE: self._on_window_update,
            frames.CONTINUATION: self._on_continuation,
        }
        wire.write(_GREETING)

    def __repr__(self) -> str:
        return f"<Http2 {self.wire.peer}, {len(self._streams)} calls, {self.answers} answered>"

    # -- what happens to the connection -------------------------------------------------------

    @property
    def busy(self) -> bool:
        return bool(self._streams)

    def receive(self, data: bytes, now: float) -> None:
        if self._over:
            return
        self.now = self.out.now = now
        try:
            progress = self._receive(data)
        except ConnectionFault as fault:
            self._fail(fault)
            return
        self._life.heard(now, finished=not self._reader.unfinished, progress=progress)

    def resumed(self) -> None:
        self.out.pump_all()

    def half_closed(self) -> bool:
        return False

    def lost(self) -> None:
        self._over = True
        self._cancel_all()

    def check(self, now: float) -> None:
        if self._over:
            return
        self.now = self.out.now = now
        for stream in tuple(self._streams.values()):
            stream.call.check(now)
        for stream in self.out.stalled(now - self._timing.stall_s):
            self._drop(stream.id, ErrorCode.CANCEL)
        for due in self._life.due(
            now, busy=self.busy, greeted=self._greeted, block_since=self._blocks.since
        ):
            self._do(due)

    def drain(self, now: float) -> None:
        """GOAWAY in two steps (RFC 9113, section 6.8): first that we will go, then, when the peer
        has surely read that, which calls we have taken.
        """
        if self._life.drain_at is None and not self._over:
            self._life.drain_at = now
            self.wire.write(frames.goaway_frame(frames.MAX_STREAM_ID, ErrorCode.NO_ERROR))
            self.wire.write(frames.frame(frames.PING, 0, 0, _DRAINING))

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """There is no answer, or not the end of one."""
        self._drop(stream.id, code)

    # -- frames -------------------------------------------------------------------------------

    def _receive(self, data: bytes) -> bool:
        """True if at least one frame was whole."""
        kind = None
        for kind, flags, stream_id, payload in self._reader.feed(data):
            try:
                if kind == frames.DATA and self._blocks.since is None and self._greeted:
                    self._on_data(flags, stream_id, payload)
                elif kind == frames.HEADERS and self._blocks.since is None and self._greeted:
                    block = self._blocks.begin(flags, stream_id, payload, self.now)
                    if block is not None:
                        self._on_block(block)
                else:
                    self._on_other(kind, flags, stream_id, payload)
            except StreamFault as fault:
                self._chore()
                self._drop(stream_id, fault.code)
            if self._over:
                break
        return kind is not None

    def _on_other(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        self._chore()
        if self._blocks.since is not None and kind != frames.CONTINUATION:
            raise _wrong("a header block is not finished, so CONTINUATION is expected")
        if not self._greeted:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise _wrong("SETTINGS is expected first")
            self._greeted = True
        act = self._dispatch.get(kind)
        if act is not None:  # types we do not know are to be ignored (section 5.5)
            act(flags, stream_id, payload)

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        self._receive_left -= size
        if self._receive_left < CONNECTION_WINDOW // 2:
            self._open_connection_window()
        if flags & frames.PADDED:
            payload = frames.unpadded(payload)
        what = _LAST_DATA if flags & frames.END_STREAM else _DATA
        stream = self._streams.get(stream_id)
        if stream is None:
            self._register.stray(stream_id, what)
            return
        self._register.move(stream, what)
        stream.receive_left -= size
        if stream.receive_left < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more than the window allows")
        if stream.expected >= 0:
            stream.count(len(payload))
        if what is _LAST_DATA:
            stream.call.data(payload, ended=True)
        elif payload:
            if stream.receive_left < STREAM_WINDOW // 2:
                self.wire.write(frames.window_frame(stream_id, STREAM_WINDOW - stream.receive_left))
                stream.receive_left = STREAM_WINDOW
            stream.call.data(payload, ended=False)
        if what is _DATA and size < _TINY_BYTES:
            self._chore()

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = self._blocks.go_on(flags, stream_id, payload)
        if block is not None:
            self._on_block(block)

    def _on_block(self, block: Block) -> None:
        if block.stream_id > self._register.last_id:
            self._register.last_id = block.stream_id
            self._open(block)
        else:
            self._on_trailers(block)

    def _on_trailers(self, block: Block) -> None:
        fields = self._headers.decode(block.data)
        what = Input.LAST_HEADERS if block.ended else Input.HEADERS
        stream = self._streams.get(block.stream_id)
        if stream is None:
            self._register.stray(block.stream_id, what)
            return
        self._register.move(stream, what)
        check_trailers(fields)
        if stream.expected >= 0:
            stream.count(0)
        stream.call.data(b"", ended=True)

    def _open(self, block: Block) -> None:
        if self._final or len(self._streams) >= MAX_STREAMS:
            self._headers.decode(block.data)
            raise StreamFault(ErrorCode.REFUSED_STREAM, "no more calls for now")
        head = self._headers.request(block.data)
        self._life.used_at = self.now
        if block.ended and head.content_length:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length without content")
        stream = Stream(
            block.stream_id,
            _HALF_CLOSED if block.ended else _OPEN,
            receive_left=STREAM_WINDOW,
            send_left=self.out.stream_window,
            expected=-1 if head.content_length is None else head.content_length,
        )
        self._streams[stream.id] = stream
        stream.call = self._application.request(self, stream, head, self.now)
        if block.ended and stream.id in self._streams:
            stream.call.data(b"", ended=True)

    def _on_priority(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise _wrong("PRIORITY is for a stream")
        if len(payload) != 5:  # not a fault of the stream, which may not exist yet
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY has 5 bytes")

    def _on_reset(self, _flags: int, stream_id: int, payload: bytes) -> None:
        frames.read_number(payload, "RST_STREAM")
        stream = self._streams.get(stream_id)
        if stream is None:
            self._register.stray(stream_id, Input.RESET)
            return
        self._register.move(stream, Input.RESET)
        self._register.remove(stream)
        self._after(stream)
        stream.call.cancel()

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise _wrong("SETTINGS is for the connection")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "an ACK carries nothing")
            return
        if len(payload) > 6 * _MAX_SETTINGS:
            raise _too_much(f"more than {_MAX_SETTINGS} settings at once")
        # Of a setting that comes twice the last counts; the others would only cost time.
        for identifier, value in dict(frames.read_settings(payload)).items():
            self._set(identifier, value)
        self.wire.write(frames.SETTINGS_ACK)
        self.out.pump_all()

    def _set(self, identifier: int, value: int) -> None:
        if identifier == Setting.ENABLE_PUSH and value > 1:
            raise _wrong("ENABLE_PUSH is 0 or 1")
        if identifier == Setting.MAX_FRAME_SIZE:
            self.out.set_frame_size(value)
        if identifier == Setting.INITIAL_WINDOW_SIZE:
            self.out.set_stream_window(value, self._streams.values())

    def _on_push_promise(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        raise _wrong("a client does not push")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise _wrong("PING is for the connection")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING has 8 bytes")
        if not flags & frames.ACK:
            self.wire.write(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif payload == _DRAINING and self._life.drain_at is not None:
            self._say_last_word()

    def _on_goaway(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise _wrong("GOAWAY is for the connection")
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY has at least 8 bytes")
        self._leaving = True
        self._close_when_done()

    def _on_window_update(self, _flags: int, stream_id: int, payload: bytes) -> None:
        increment = frames.read_number(payload, "WINDOW_UPDATE") & frames.MAX_WINDOW
        if not stream_id:
            self.out.grow(increment)
            return
        stream = self._streams.get(stream_id)
        if stream is None:
            self._register.stray(stream_id, Input.WINDOW_UPDATE)
            return
        self._register.move(stream, Input.WINDOW_UPDATE)
        self.out.grow_stream(stream, increment)

    # -- the life of streams ------------------------------------------------------------------

    def _ended(self, stream: Stream) -> None:
        """The end of an answer was written."""
        self.answers += 1
        if stream.state is _OPEN:
            self.wire.write(frames.reset_frame(stream.id, ErrorCode.NO_ERROR))
        self._register.end(stream, _ANSWERED)
        self._after(stream)

    def _drop(self, stream_id: int, code: ErrorCode) -> None:
        """RST_STREAM, whether the stream lives or not."""
        self.wire.write(frames.reset_frame(stream_id, code))
        stream = self._streams.get(stream_id)
        if stream is None:
            self._register.discard(stream_id)
            return
        self._register.end(stream, Input.DROPPED)
        self._after(stream)
        stream.call.cancel()

    def _after(self, stream: Stream) -> None:
        """A stream has ended."""
        if stream.blocked_since is not None:
            self.out.forget(stream)
        if self._leaving:
            self._close_when_done()

    def _open_connection_window(self) -> None:
        if self._receive_left < 0:
            message = "more than the window of the connection allows"
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, message)
        self.wire.write(frames.window_frame(0, CONNECTION_WINDOW - self._receive_left))
        self._receive_left = CONNECTION_WINDOW

    # -- time and the end ---------------------------------------------------------------------

    def _chore(self) -> None:
        if self._patience.is_over(self.now, self.answers):
            raise _too_much("too many frames that bring no request nearer")

    def _do(self, due: Due) -> None:
        match due:
            case Due.GIVE_UP:
                self._fail(ConnectionFault(ErrorCode.NO_ERROR, "nothing came in time"))
            case Due.ABORT:
                self.wire.abort()
            case Due.PING:
                self.wire.write(frames.frame(frames.PING, 0, 0, _ARE_YOU_THERE))
            case Due.DRAIN:
                self.drain(self.now)
            case Due.LAST_WORD:
                self._say_last_word()
            case Due.CUT:
                for stream in tuple(self._streams.values()):
                    self._drop(stream.id, ErrorCode.CANCEL)

    def _say_last_word(self) -> None:
        if not self._final:
            self._final = self._leaving = True
            self.wire.write(frames.goaway_frame(self._register.last_id, ErrorCode.NO_ERROR))
            self._close_when_done()

    def _close_when_done(self) -> None:
        if not self._streams and not self._over:
            self._over = True
            self.wire.finish()

    def _fail(self, fault: ConnectionFault) -> None:
        self.wire.note("http2 connection ended", fault.code.name, fault.message)
        self._over = True
        self._cancel_all()
        self.wire.write(frames.goaway_frame(self._register.last_id, fault.code, fault.message))
        self.wire.finish()

    def _cancel_all(self) -> None:
        streams = tuple(self._streams.values())
        self._streams.clear()
        for stream in streams:
            stream.call.cancel()


def _wrong(message: str) -> ConnectionFault:
    return ConnectionFault(ErrorCode.PROTOCOL_ERROR, message)


def _too_much(message: str) -> ConnectionFault:
    return ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, message)
