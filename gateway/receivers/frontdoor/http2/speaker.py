"""HTTP/2 as a server speaks it (RFC 9113): bytes in, calls of the application and bytes out; pure.

Nothing that comes in is kept but an unfinished frame or header block: data goes on to its call at
once, and its window is opened again at once, since what the calls keep is held against the memory
budget there. What goes out waits only for windows and for a peer that reads.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from gateway.receivers.frontdoor.http2 import frames
from gateway.receivers.frontdoor.http2.frames import (
    ConnectionFault,
    ErrorCode,
    FrameReader,
    Setting,
    StreamFault,
)
from gateway.receivers.frontdoor.http2.headers import (
    MAX_BLOCK_BYTES,
    HeaderDecoder,
    RequestHead,
)
from gateway.receivers.frontdoor.http2.patience import Patience
from gateway.receivers.frontdoor.http2.streams import MOVES, Call, Input, State, Stream
from gateway.receivers.frontdoor.wire import Timing, Wire
from gateway.telemetry.logs import Throttle, facts

logger = logging.getLogger(__name__)

MAX_STREAMS = 256
"""Requests in hand on one connection; a client keeps further ones back."""
STREAM_WINDOW = 2**20
CONNECTION_WINDOW = 4 * 2**20
"""How far a peer may send ahead of us: enough for 1 Gbit/s at 8 ms, and for many calls at once."""

_MAX_SETTINGS = 64
_DISCARDED = 1000
"""How many streams we remember to have reset while the peer was sending."""

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
_DRAIN_ANSWER_S = 1.0

# Bound once: looking up a member of an enum costs as much as the rest of a step.
_OPEN, _DISCARD = State.OPEN, State.DISCARDED
_DATA, _LAST_DATA = Input.DATA, Input.LAST_DATA
_throttle = Throttle()


class Application(Protocol):
    """What serves the requests."""

    def request(self, speaker: Http2, stream: Stream, head: RequestHead, now: float) -> Call:
        """Begin a call; it may be answered before this returns."""


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
        return cls(block, data, trailers, tuple(a + b for a, b in zip(tails, heads, strict=True)))


class _Block(NamedTuple):
    """A header block that is still coming."""

    stream_id: int
    ended: bool
    pieces: list[bytes]
    since: float


class Http2:
    """One connection. The preface has been read; what follows it goes to ``receive``."""

    def __init__(
        self, wire: Wire, application: Application, timing: Timing, now: float, *, retire_at: float
    ) -> None:
        self.wire = wire
        self.answers = 0
        """Calls answered since the beginning."""
        self._application = application
        self._timing = timing
        self._reader = FrameReader()
        self._headers = HeaderDecoder()
        self._patience = Patience(now)
        self._streams: dict[int, Stream] = {}
        self._discarded: dict[int, None] = {}
        self._last_id = 0
        self._block: _Block | None = None
        self._greeted = False
        self._over = False
        self._receive_left = CONNECTION_WINDOW
        self._send_left = frames.DEFAULT_WINDOW
        self._peer_window = frames.DEFAULT_WINDOW
        self._peer_frame_bytes = frames.DEFAULT_MAX_FRAME_BYTES
        self._blocked: dict[int, Stream] = {}
        self.now = self._began = self._heard_at = self._used_at = now
        self._unfinished_since: float | None = None
        self._retire_at = retire_at
        self._pinged_at: float | None = None
        self._drain_at: float | None = None
        self._final = False
        self._leaving = False
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
        self.now = self._heard_at = now
        try:
            whole = self._receive(data)
        except ConnectionFault as fault:
            self._fail(fault)
            return
        if not self._reader.unfinished:
            self._unfinished_since = None
        elif whole or self._unfinished_since is None:
            self._unfinished_since = now

    def resumed(self) -> None:
        self._pump_all()

    def half_closed(self) -> bool:
        return False

    def lost(self) -> None:
        self._over = True
        self._cancel_all()

    def check(self, now: float) -> None:
        if self._over:
            return
        self.now = now
        if self._is_too_slow(now):
            self._fail(ConnectionFault(ErrorCode.NO_ERROR, "nothing came in time"))
            return
        for stream in tuple(self._streams.values()):
            stream.call.check(now)
            blocked = stream.blocked_since
            if blocked is not None and now - blocked > self._timing.stall_s:
                self._give_up(stream)
        self._ping(now)
        idle_s = 0.0 if self._streams else now - self._used_at
        if now > self._retire_at or idle_s > self._timing.idle_s:
            self.drain(now)
        self._check_drain(now)

    def drain(self, now: float) -> None:
        """GOAWAY in two steps (RFC 9113, section 6.8): first that we will go, then, when the peer
        has surely read that, which calls we have taken.
        """
        if self._drain_at is None and not self._over:
            self._drain_at = now
            self.wire.write(frames.goaway_frame(frames.MAX_STREAM_ID, ErrorCode.NO_ERROR))
            self.wire.write(frames.frame(frames.PING, 0, 0, _DRAINING))

    # -- what a call may do with its stream ---------------------------------------------------

    def answer(self, stream: Stream, answer: Answer) -> None:
        """All of an answer at once."""
        size = len(answer.data)
        if stream.send_left < size or self._send_left < size:
            self.begin(stream, answer.block)
            stream.trailers = answer.trailers
            self.send(stream, answer.data)
            return
        self._send_left -= size
        self.wire.write(stream.id.to_bytes(4, "big").join(answer.pieces))
        self._ended(stream)

    def begin(self, stream: Stream, block: bytes) -> None:
        """The header block of an answer that has a body."""
        stream.begun = True
        self._write_block(stream, block, ended=False)

    def send(self, stream: Stream, data: bytes) -> None:
        """Queue a piece of the body."""
        if stream.outbox is None:
            stream.outbox = deque()
        stream.outbox.append(data)
        self._pump(stream)

    def end(self, stream: Stream, trailers: bytes) -> None:
        """The answer ends with these trailers, once its body is sent."""
        stream.trailers = trailers
        self._pump(stream)

    def send_last(self, stream: Stream, data: bytes) -> None:
        """Queue the last piece of a body without trailers."""
        stream.trailers = b""
        self.send(stream, data)

    def respond(self, stream: Stream, block: bytes) -> None:
        """All of an answer in one header block."""
        self._write_block(stream, block, ended=True)
        self._ended(stream)

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """There is no answer."""
        self._drop(stream.id, code)

    # -- frames -------------------------------------------------------------------------------

    def _receive(self, data: bytes) -> bool:
        """True if at least one frame was whole."""
        kind = None
        for kind, flags, stream_id, payload in self._reader.feed(data):
            try:
                if kind == frames.DATA and self._block is None and self._greeted:
                    self._on_data(flags, stream_id, payload)
                elif kind == frames.HEADERS and self._block is None and self._greeted:
                    self._on_headers(flags, stream_id, payload)
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
        if self._block is not None and kind != frames.CONTINUATION:
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
            self._stray(stream_id, what)
            return
        stream.state = self._move(stream, what)
        stream.receive_left -= size
        if stream.receive_left < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more than the window allows")
        if stream.expected >= 0:
            self._count_expected(stream, len(payload))
        if what is _LAST_DATA:
            stream.call.data(payload, ended=True)
        elif payload:
            if stream.receive_left < STREAM_WINDOW // 2:
                self.wire.write(frames.window_frame(stream_id, STREAM_WINDOW - stream.receive_left))
                stream.receive_left = STREAM_WINDOW
            stream.call.data(payload, ended=False)
        else:
            self._chore()

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id & 1:
            raise _wrong("a client's streams have odd numbers")
        if flags & frames.PADDED:
            payload = frames.unpadded(payload)
        if flags & frames.HAS_PRIORITY:
            if len(payload) < 5:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "priority has 5 bytes")
            payload = payload[5:]
        ended = bool(flags & frames.END_STREAM)
        if flags & frames.END_HEADERS:
            self._on_block(stream_id, payload, ended=ended)
        else:
            self._block = _Block(stream_id, ended, [payload], self.now)

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = self._block
        if block is None or block.stream_id != stream_id:
            raise _wrong("CONTINUATION without its HEADERS")
        block.pieces.append(payload)
        if sum(map(len, block.pieces)) > MAX_BLOCK_BYTES:
            raise _too_much(f"a header block of more than {MAX_BLOCK_BYTES} bytes")
        if flags & frames.END_HEADERS:
            self._block = None
            self._on_block(stream_id, b"".join(block.pieces), ended=block.ended)

    def _on_block(self, stream_id: int, block: bytes, *, ended: bool) -> None:
        if stream_id > self._last_id:
            self._last_id = stream_id
            self._open(stream_id, block, ended=ended)
            return
        what = Input.LAST_HEADERS if ended else Input.HEADERS
        stream = self._streams.get(stream_id)
        if stream is None:
            self._headers.discard(block)
            self._stray(stream_id, what)
            return
        self._headers.trailers(block)
        stream.state = self._move(stream, what)
        self._count_expected(stream, 0)
        stream.call.data(b"", ended=True)

    def _open(self, stream_id: int, block: bytes, *, ended: bool) -> None:
        if len(block) > MAX_BLOCK_BYTES:
            raise _too_much(f"a header block of more than {MAX_BLOCK_BYTES} bytes")
        if self._final or len(self._streams) >= MAX_STREAMS:
            self._headers.discard(block)
            raise StreamFault(ErrorCode.REFUSED_STREAM, "no more calls for now")
        head = self._headers.request(block)
        self._used_at = self.now
        state = MOVES[State.IDLE][Input.LAST_HEADERS if ended else Input.HEADERS]
        stream = Stream(
            stream_id,
            State(state),
            receive_left=STREAM_WINDOW,
            send_left=self._peer_window,
            expected=-1 if head.content_length is None else head.content_length,
        )
        if ended and head.content_length:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length without content")
        self._streams[stream_id] = stream
        stream.call = self._application.request(self, stream, head, self.now)
        if ended and stream_id in self._streams:
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
            self._stray(stream_id, Input.RESET)
            return
        stream.state = self._move(stream, Input.RESET)
        self._forget(stream)
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
        self._pump_all()

    def _set(self, identifier: int, value: int) -> None:
        if identifier == Setting.ENABLE_PUSH and value > 1:
            raise _wrong("ENABLE_PUSH is 0 or 1")
        if identifier == Setting.MAX_FRAME_SIZE:
            if not frames.DEFAULT_MAX_FRAME_BYTES <= value < 2**24:
                raise _wrong("MAX_FRAME_SIZE is from 2^14 to 2^24 - 1")
            self._peer_frame_bytes = value
        if identifier == Setting.INITIAL_WINDOW_SIZE:
            if value > frames.MAX_WINDOW:
                raise _overflow()
            more = value - self._peer_window
            self._peer_window = value
            for stream in self._streams.values():
                stream.send_left += more
                if stream.send_left > frames.MAX_WINDOW:
                    raise _overflow()

    def _on_push_promise(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        raise _wrong("a client does not push")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise _wrong("PING is for the connection")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING has 8 bytes")
        if not flags & frames.ACK:
            self.wire.write(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif payload == _DRAINING and self._drain_at is not None:
            self._say_last_word()
        elif payload == _ARE_YOU_THERE:
            self._pinged_at = None

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
            if not increment:
                raise _wrong("a window grows by at least 1")
            self._send_left += increment
            if self._send_left > frames.MAX_WINDOW:
                raise _overflow()
            self._pump_all()
            return
        stream = self._streams.get(stream_id)
        if stream is None:
            self._stray(stream_id, Input.WINDOW_UPDATE)
            return
        stream.state = self._move(stream, Input.WINDOW_UPDATE)
        stream.send_left += increment
        if not increment or stream.send_left > frames.MAX_WINDOW:
            code = ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR
            raise StreamFault(code, "an increment that is no such")
        if stream.blocked_since is not None:
            self._pump(stream)

    # -- the life of streams ------------------------------------------------------------------

    def _move(self, stream: Stream, what: Input) -> State:
        state = MOVES[stream.state][what]
        if isinstance(state, ErrorCode):
            raise StreamFault(state, f"{what.name} when {State(stream.state).name}")
        return state

    def _stray(self, stream_id: int, what: Input) -> None:
        """A frame for a stream that does not live."""
        if stream_id > self._last_id or not stream_id & 1:
            before = State.IDLE  # what we never opened, number 0 too
        elif stream_id in self._discarded:
            before = State.DISCARDED
        else:
            before = State.CLOSED
        state = MOVES[before][what]
        if isinstance(state, ErrorCode):
            raise ConnectionFault(state, f"{what.name} for stream {stream_id}, {before.name}")
        if before is State.DISCARDED and state is State.CLOSED:
            del self._discarded[stream_id]

    def _ended(self, stream: Stream) -> None:
        """The end of an answer was written."""
        self.answers += 1
        if stream.state is _OPEN:
            self.wire.write(frames.reset_frame(stream.id, ErrorCode.NO_ERROR))
        stream.state = State(MOVES[stream.state][Input.ANSWERED])
        self._forget(stream)

    def _drop(self, stream_id: int, code: ErrorCode) -> None:
        """RST_STREAM, whether the stream lives or not."""
        self.wire.write(frames.reset_frame(stream_id, code))
        stream = self._streams.get(stream_id)
        if stream is None:
            self._discard(stream_id)
            return
        stream.state = State(MOVES[stream.state][Input.DROPPED])
        self._forget(stream)
        stream.call.cancel()

    def _give_up(self, stream: Stream) -> None:
        if stream.id in self._streams:
            self._drop(stream.id, ErrorCode.CANCEL)

    def _forget(self, stream: Stream) -> None:
        del self._streams[stream.id]
        if stream.blocked_since is not None:
            self._blocked.pop(stream.id, None)
        if stream.state is _DISCARD:
            self._discard(stream.id)
        if self._leaving:
            self._close_when_done()

    def _discard(self, stream_id: int) -> None:
        self._discarded[stream_id] = None
        if len(self._discarded) > _DISCARDED:
            del self._discarded[next(iter(self._discarded))]

    def _count_expected(self, stream: Stream, size: int) -> None:
        """Hold the body against content-length (section 8.1.1)."""
        if stream.expected < 0:
            return
        stream.expected -= size
        ended = stream.state is not _OPEN
        if stream.expected < 0 or (ended and stream.expected):
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length is not the length")

    # -- what goes out ------------------------------------------------------------------------

    def _write_block(self, stream: Stream, block: bytes, *, ended: bool) -> None:
        size = self._peer_frame_bytes
        self.wire.write(frames.header_frames(stream.id, block, ended=ended, max_frame_bytes=size))

    def _pump(self, stream: Stream) -> None:
        """Send of a stream what windows allow; then tell its call, or end it."""
        outbox = stream.outbox
        while outbox:
            room = min(stream.send_left, self._send_left, self._peer_frame_bytes)
            if room <= 0 or self.wire.paused:
                if stream.blocked_since is None:
                    stream.blocked_since = self.now
                    self._blocked[stream.id] = stream
                return
            piece = memoryview(outbox.popleft())
            if len(piece) > room:
                outbox.appendleft(piece[room:])  # type: ignore[arg-type] # as good as bytes here
                piece = piece[:room]
            stream.send_left -= len(piece)
            self._send_left -= len(piece)
            ended = stream.trailers == b"" and not outbox
            self.wire.write(frames.data_frame(stream.id, bytes(piece), ended=ended))
            stream.blocked_since = None
        self._blocked.pop(stream.id, None)
        if stream.trailers is not None:
            if stream.trailers:
                self._write_block(stream, stream.trailers, ended=True)
            self._ended(stream)
        elif outbox is not None:
            stream.call.writable()

    def _pump_all(self) -> None:
        for stream in tuple(self._blocked.values()):
            self._pump(stream)

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

    def _is_too_slow(self, now: float) -> bool:
        timing = self._timing
        if self._block is not None:
            return now - self._block.since > timing.head_s
        if not self._greeted:
            return now - self._began > timing.head_s
        since = self._unfinished_since
        if since is None:
            return False
        return now - since > timing.body_s or now - self._heard_at > timing.body_idle_s

    def _ping(self, now: float) -> None:
        if self._pinged_at is None:
            if now - self._heard_at > self._timing.ping_after_s:
                self._pinged_at = now
                self.wire.write(frames.frame(frames.PING, 0, 0, _ARE_YOU_THERE))
        elif self._heard_at > self._pinged_at:
            self._pinged_at = None
        elif now - self._pinged_at > self._timing.ping_timeout_s:
            self.wire.abort()

    def _check_drain(self, now: float) -> None:
        if self._drain_at is None or self._over:
            return
        if now - self._drain_at > _DRAIN_ANSWER_S:
            self._say_last_word()
        if self._streams and now - self._drain_at > self._timing.age_grace_s:
            for stream in tuple(self._streams.values()):
                self._drop(stream.id, ErrorCode.CANCEL)

    def _say_last_word(self) -> None:
        if not self._final:
            self._final = self._leaving = True
            self.wire.write(frames.goaway_frame(self._last_id, ErrorCode.NO_ERROR))
            self._close_when_done()

    def _close_when_done(self) -> None:
        if not self._streams and not self._over:
            self._over = True
            self.wire.finish()

    def _fail(self, fault: ConnectionFault) -> None:
        quiet = _throttle.ready(fault.code.name)
        if quiet is not None:
            logger.warning(
                "http2 connection ended",
                extra=facts(
                    peer=self.wire.peer,
                    code=fault.code.name,
                    message=fault.message,
                    like_it=quiet or None,
                ),
            )
        self._over = True
        self._cancel_all()
        self.wire.write(frames.goaway_frame(self._last_id, fault.code, fault.message))
        self.wire.finish()

    def _cancel_all(self) -> None:
        streams = tuple(self._streams.values())
        self._streams.clear()
        self._blocked.clear()
        for stream in streams:
            stream.call.cancel()


def _wrong(message: str) -> ConnectionFault:
    return ConnectionFault(ErrorCode.PROTOCOL_ERROR, message)


def _too_much(message: str) -> ConnectionFault:
    return ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, message)


def _overflow() -> ConnectionFault:
    return ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window of more than 2^31 - 1 bytes")
