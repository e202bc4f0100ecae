"""The life of a stream (RFC 9113, section 5.1), as a server that never pushes sees it."""

from __future__ import annotations

from collections import deque
from enum import IntEnum, auto
from typing import Protocol

from gateway.receivers.frontdoor.http2.frames import ErrorCode, StreamFault


class State(IntEnum):
    IDLE = auto()
    OPEN = auto()
    HALF_CLOSED = auto()
    """The peer has sent all of its request."""
    CLOSED = auto()
    DISCARDED = auto()
    """We have reset it while the peer may still be sending."""


class Input(IntEnum):
    """What happens to a stream."""

    HEADERS = auto()
    """A header block; without the end of the stream."""
    LAST_HEADERS = auto()
    """A header block that ends the request: its first and only one, or its trailers."""
    DATA = auto()
    LAST_DATA = auto()
    WINDOW_UPDATE = auto()
    RESET = auto()
    """By the peer."""
    ANSWERED = auto()
    """We have sent the end of our answer."""
    DROPPED = auto()
    """We have sent RST_STREAM."""


MOVES: dict[State, dict[Input, State | ErrorCode]] = {
    State.IDLE: {
        Input.HEADERS: State.OPEN,
        Input.LAST_HEADERS: State.HALF_CLOSED,
        Input.DATA: ErrorCode.PROTOCOL_ERROR,
        Input.LAST_DATA: ErrorCode.PROTOCOL_ERROR,
        Input.WINDOW_UPDATE: ErrorCode.PROTOCOL_ERROR,
        Input.RESET: ErrorCode.PROTOCOL_ERROR,
    },
    State.OPEN: {
        Input.HEADERS: ErrorCode.PROTOCOL_ERROR,  # trailers that do not end the request
        Input.LAST_HEADERS: State.HALF_CLOSED,
        Input.DATA: State.OPEN,
        Input.LAST_DATA: State.HALF_CLOSED,
        Input.WINDOW_UPDATE: State.OPEN,
        Input.RESET: State.CLOSED,
    },
    State.HALF_CLOSED: {
        Input.HEADERS: ErrorCode.STREAM_CLOSED,
        Input.LAST_HEADERS: ErrorCode.STREAM_CLOSED,
        Input.DATA: ErrorCode.STREAM_CLOSED,
        Input.LAST_DATA: ErrorCode.STREAM_CLOSED,
        Input.WINDOW_UPDATE: State.HALF_CLOSED,
        Input.RESET: State.CLOSED,
    },
    State.CLOSED: {
        Input.HEADERS: ErrorCode.STREAM_CLOSED,
        Input.LAST_HEADERS: ErrorCode.STREAM_CLOSED,
        Input.DATA: ErrorCode.STREAM_CLOSED,
        Input.LAST_DATA: ErrorCode.STREAM_CLOSED,
        Input.WINDOW_UPDATE: State.CLOSED,
        Input.RESET: State.CLOSED,
    },
    State.DISCARDED: {
        Input.HEADERS: State.DISCARDED,
        Input.LAST_HEADERS: State.CLOSED,
        Input.DATA: State.DISCARDED,
        Input.LAST_DATA: State.CLOSED,
        Input.WINDOW_UPDATE: State.DISCARDED,
        Input.RESET: State.CLOSED,
    },
}
"""What the peer may do: the next state, or what was wrong about it, a fault of the stream where it
lives (OPEN, HALF_CLOSED), else of the connection."""

ENDS: dict[State, dict[Input, State]] = {
    State.OPEN: {
        Input.ANSWERED: State.DISCARDED,  # an early answer; RST_STREAM(NO_ERROR) follows it
        Input.DROPPED: State.DISCARDED,
    },
    State.HALF_CLOSED: {
        Input.ANSWERED: State.CLOSED,
        Input.DROPPED: State.CLOSED,
    },
}
"""What we may do. A pair that is absent is a bug of ours."""


class Call(Protocol):
    """What the application does with one request."""

    def data(self, data: bytes, *, ended: bool) -> None:
        """The next piece of the body; ``ended`` with the last, which may be empty."""

    def writable(self) -> None:
        """All that was queued on the stream is sent."""

    def cancel(self) -> None:
        """The peer wants no answer any more, or is gone."""

    def check(self, now: float) -> None:
        """Time passes."""


class Stream:
    """The part of a connection that belongs to one request."""

    __slots__ = (
        "begun",
        "blocked_since",
        "call",
        "expected",
        "id",
        "outbox",
        "receive_left",
        "send_left",
        "state",
        "trailers",
    )
    call: Call

    def __init__(
        self, stream_id: int, state: State, *, receive_left: int, send_left: int, expected: int
    ) -> None:
        self.id = stream_id
        self.state = state
        self.receive_left = receive_left
        """Bytes that the peer may still send."""
        self.send_left = send_left
        """Bytes that we may still send."""
        self.expected = expected
        """Bytes still to come by content-length; negative if it was not told."""
        self.outbox: deque[memoryview] | None = None
        """Data that waits for a window."""
        self.trailers: bytes | None = None
        """The header block that follows the data; empty if the data itself ends the stream."""
        self.blocked_since: float | None = None
        self.begun = False
        """True once an answer with a body has begun."""

    def count(self, size: int) -> None:
        """Hold the body against content-length (RFC 9113, section 8.1.1). Raises StreamFault."""
        self.expected -= size
        ended = self.state is State.HALF_CLOSED
        if self.expected < 0 or (ended and self.expected):
            message = "content-length is not the length"
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, message)
