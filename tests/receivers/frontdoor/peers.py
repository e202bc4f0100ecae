"""Peers of a speaker that need no socket: a wire that records, and a client made of ``h2``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection

from gateway.receivers.frontdoor.http2 import frames
from gateway.receivers.frontdoor.http2.frames import ErrorCode, frame, settings_frame
from gateway.receivers.frontdoor.http2.headers import RequestHead, encode
from gateway.receivers.frontdoor.http2.speaker import Http2
from gateway.receivers.frontdoor.http2.streams import Stream
from gateway.receivers.frontdoor.sniff import PREFACE
from gateway.receivers.frontdoor.wire import Timing

REQUEST = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/a.B/C"),
    (":authority", "gateway"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]
END = frames.END_STREAM | frames.END_HEADERS
BLOCK = encode(REQUEST)
HELLO = settings_frame({})


class RecordedWire:
    """What a speaker did with its connection."""

    def __init__(self) -> None:
        self.peer = "10.0.0.1:4711"
        self.paused = False
        self.written = b""
        self.held = False
        self.ends: list[str] = []
        """Of close, finish, abort, in order."""
        self.handed_over: bytes | None = None
        self.notes: list[tuple[str, str]] = []

    def write(self, data: bytes) -> None:
        self.written += data

    def take(self) -> bytes:
        """What was written since the last time."""
        data, self.written = self.written, b""
        return data

    def hold(self) -> None:
        self.held = True

    def go_on(self) -> None:
        self.held = False

    def close(self) -> None:
        self.ends.append("close")

    def finish(self) -> None:
        self.ends.append("finish")

    def abort(self) -> None:
        self.ends.append("abort")

    def note(self, event: str, code: str, message: str) -> None:
        self.notes.append((event, code))

    def hand_over(self, data: bytes) -> None:
        self.handed_over = data


class RecordedCall:
    """A call that does what the test tells it."""

    def __init__(self, speaker: Http2, stream: Stream, head: RequestHead) -> None:
        self.speaker = speaker
        self.stream = stream
        self.head = head
        self.body = b""
        self.ended = False
        self.cancelled = False
        self.writables = 0
        self.checks: list[float] = []

    def data(self, data: bytes, *, ended: bool) -> None:
        assert not self.ended
        self.body += data
        self.ended = ended

    def writable(self) -> None:
        self.writables += 1

    def cancel(self) -> None:
        assert not self.cancelled
        self.cancelled = True

    def check(self, now: float) -> None:
        self.checks.append(now)

    def answer(self, data: bytes = b"answer") -> None:
        self.speaker.out.begin(self.stream, encode([(":status", "200")]))
        self.speaker.out.send(self.stream, data)
        self.speaker.out.end(self.stream, encode([("grpc-status", "0")]))


class RecordedCalls:
    """An application that keeps its calls."""

    def __init__(self) -> None:
        self.calls: list[RecordedCall] = []

    def request(self, speaker: Http2, stream: Stream, head: RequestHead, now: float) -> Any:
        call = RecordedCall(speaker, stream, head)
        self.calls.append(call)
        return call


class RawPeer:
    """Sends bytes as they are, which ``h2`` would refuse to, and reads frames."""

    def __init__(self, application: Any = None, *, greet: bool = True) -> None:
        self.wire = RecordedWire()
        self.calls = RecordedCalls()
        self.now = 1000.0
        self.speaker = Http2(
            self.wire, application or self.calls, Timing(), self.now, retire_at=float("inf")
        )
        if greet:
            self.greeting = self.send(HELLO)

    def send(self, *data: bytes) -> list[frames.Frame]:
        """Send; the frames that come back."""
        self.speaker.receive(b"".join(data), self.now)
        return self.read()

    def read(self) -> list[frames.Frame]:
        return list(frames.FrameReader().feed(self.wire.take()))

    def after(self, seconds: float) -> list[frames.Frame]:
        """Let time pass; the frames that come."""
        self.now += seconds
        self.speaker.check(self.now)
        return self.read()

    def open(self, stream_id: int = 1, *, ended: bool = False) -> RecordedCall:
        """A call that has begun."""
        self.send(headers(stream_id, ended=ended))
        return self.calls.calls[-1]

    @property
    def alive(self) -> bool:
        return not self.wire.ends


class H2Peer:
    """A well-behaved client in lockstep with the speaker."""

    def __init__(self, application: Any = None) -> None:
        self.raw = RawPeer(application, greet=False)
        self.client = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.client.initiate_connection()
        self.preface_seen = False
        self.events: list[Any] = []
        self.sync()

    @property
    def calls(self) -> list[RecordedCall]:
        return self.raw.calls.calls

    def sync(self) -> list[Any]:
        """Carry bytes both ways until there are none; the new events of the client."""
        new: list[Any] = []
        while True:
            there, back = self.client.data_to_send(), self.raw.wire.take()
            if not there and not back:
                break
            if there and not self.preface_seen:
                assert there.startswith(PREFACE)
                there, self.preface_seen = there[len(PREFACE) :], True
            if there:
                self.raw.speaker.receive(there, self.raw.now)
            new += self.client.receive_data(back)
        self.events += new
        return new

    def request(self, body: bytes = b"", fields: Any = None, *, ended: bool = True) -> int:
        """Send a request; its stream."""
        stream_id = self.client.get_next_available_stream_id()
        self.client.send_headers(stream_id, fields or REQUEST, end_stream=ended and not body)
        if body:
            self.client.send_data(stream_id, body, end_stream=ended)
        self.sync()
        return stream_id


def headers(
    stream_id: int, block: bytes = BLOCK, *, ended: bool = False, flags: int = frames.END_HEADERS
) -> bytes:
    return frame(frames.HEADERS, flags | (frames.END_STREAM if ended else 0), stream_id, block)


def data(stream_id: int, payload: bytes, *, ended: bool = False) -> bytes:
    return frames.data_frame(stream_id, payload, ended=ended)


def goaways(received: list[frames.Frame]) -> Iterator[tuple[int, ErrorCode, str]]:
    for kind, _, _, payload in received:
        if kind == frames.GOAWAY:
            last = int.from_bytes(payload[:4], "big")
            code = ErrorCode(int.from_bytes(payload[4:8], "big"))
            yield last, code, payload[8:].decode()


def resets(received: list[frames.Frame]) -> dict[int, ErrorCode]:
    return {
        stream_id: ErrorCode(int.from_bytes(payload, "big"))
        for kind, _, stream_id, payload in received
        if kind == frames.RST_STREAM
    }


def kinds(received: list[frames.Frame]) -> list[int]:
    return [kind for kind, _, _, _ in received]
