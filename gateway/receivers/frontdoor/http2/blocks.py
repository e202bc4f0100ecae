"""Header blocks as they come: HEADERS and the CONTINUATION that follow it; pure."""

from __future__ import annotations

from typing import NamedTuple

from gateway.receivers.frontdoor.http2 import frames
from gateway.receivers.frontdoor.http2.frames import ConnectionFault, ErrorCode

MAX_BLOCK_BYTES = 32 * 2**10
"""Of one header block as it is sent, over all its frames."""

_PRIORITY_BYTES = 5


class Block(NamedTuple):
    """A whole header block."""

    stream_id: int
    data: bytes
    ended: bool
    """The stream ends with it."""


class Blocks:
    """Puts header blocks together; at most one is unfinished at a time."""

    def __init__(self) -> None:
        self.since: float | None = None
        """When the unfinished block began; None if there is none."""
        self._stream_id = 0
        self._ended = False
        self._data = b""

    def begin(self, flags: int, stream_id: int, payload: bytes, now: float) -> Block | None:
        """HEADERS came: the block, if that was all. Raises ConnectionFault."""
        if not stream_id & 1:
            message = "a client's streams have odd numbers"
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, message)
        if flags & frames.PADDED:
            payload = frames.unpadded(payload)
        if flags & frames.HAS_PRIORITY:
            if len(payload) < _PRIORITY_BYTES:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "priority has 5 bytes")
            payload = payload[_PRIORITY_BYTES:]
        _check_size(payload)
        ended = bool(flags & frames.END_STREAM)
        if flags & frames.END_HEADERS:
            return Block(stream_id, payload, ended)
        self.since = now
        self._stream_id, self._data, self._ended = stream_id, payload, ended
        return None

    def go_on(self, flags: int, stream_id: int, payload: bytes) -> Block | None:
        """CONTINUATION came: the block, if that was its end. Raises ConnectionFault."""
        if self.since is None or self._stream_id != stream_id:
            message = "CONTINUATION without its HEADERS"
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, message)
        self._data += payload
        _check_size(self._data)
        if not flags & frames.END_HEADERS:
            return None
        self.since = None
        return Block(stream_id, self._data, self._ended)


def _check_size(data: bytes) -> None:
    if len(data) > MAX_BLOCK_BYTES:
        message = f"a header block of more than {MAX_BLOCK_BYTES} bytes"
        raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, message)
