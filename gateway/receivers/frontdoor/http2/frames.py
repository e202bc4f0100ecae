"""HTTP/2 frames, RFC 9113 section 4 and 6: bytes to frames and frames to bytes; pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum

MAX_FRAME_BYTES = 64 * 2**10
"""Largest payload we take; larger frames make long messages cheaper, smaller ones bound what an
unfinished frame holds in memory."""

DEFAULT_MAX_FRAME_BYTES = 2**14
DEFAULT_WINDOW = 2**16 - 1
MAX_WINDOW = 2**31 - 1
MAX_STREAM_ID = 2**31 - 1

_HEAD = struct.Struct(">LBL")
_HEAD_BYTES = _HEAD.size
_SETTING = struct.Struct(">HL")

# Plain numbers, not an enum: they are compared for every frame.
DATA = 0x0
HEADERS = 0x1
PRIORITY = 0x2
RST_STREAM = 0x3
SETTINGS = 0x4
PUSH_PROMISE = 0x5
PING = 0x6
GOAWAY = 0x7
WINDOW_UPDATE = 0x8
CONTINUATION = 0x9

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

Frame = tuple[int, int, int, bytes]
"""Type, flags, stream id, payload."""


class ErrorCode(IntEnum):
    """RFC 9113, section 7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB


class Setting(IntEnum):
    """RFC 9113, section 6.5.2."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


class ConnectionFault(Exception):  # noqa: N818 - what the peer did, not a fault of the program
    """The peer broke the protocol in a way that ends its connection."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class StreamFault(Exception):  # noqa: N818 - as above
    """The peer broke the protocol in a way that ends one stream."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class FrameReader:
    """Cuts a stream of bytes into frames, whatever pieces it comes in.

    Holds at most one unfinished frame.
    """

    __slots__ = ("_needed", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._needed = _HEAD_BYTES

    @property
    def unfinished(self) -> bool:
        """True while a frame has come only in part."""
        return bool(self._rest)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that ``data`` completes. Raises ConnectionFault for one that is too large."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest.clear()
        start, end = 0, len(data)
        needed = _HEAD_BYTES
        while end - start >= _HEAD_BYTES:
            size_and_type, flags, stream_id = _HEAD.unpack_from(data, start)
            size = size_and_type >> 8
            if size > MAX_FRAME_BYTES:
                message = f"a frame of {size} bytes; at most {MAX_FRAME_BYTES} are taken"
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, message)
            stop = start + _HEAD_BYTES + size
            if stop > end:
                needed = _HEAD_BYTES + size
                break
            payload = data[start + _HEAD_BYTES : stop]
            start = stop
            yield size_and_type & 0xFF, flags, stream_id & MAX_STREAM_ID, payload
        self._needed = needed
        if start < end:
            self._rest += data[start:]


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return _HEAD.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def data_frame(stream_id: int, payload: bytes, *, ended: bool = False) -> bytes:
    return frame(DATA, END_STREAM if ended else 0, stream_id, payload)


def header_frames(stream_id: int, block: bytes, *, ended: bool, max_frame_bytes: int) -> bytes:
    """A header block as HEADERS and as many CONTINUATION as it takes."""
    pieces = [block[at : at + max_frame_bytes] for at in range(0, len(block), max_frame_bytes)]
    last = len(pieces) - 1
    frames = []
    for index, piece in enumerate(pieces):
        flags = END_HEADERS if index == last else 0
        if index == 0 and ended:
            flags |= END_STREAM
        frames.append(frame(CONTINUATION if index else HEADERS, flags, stream_id, piece))
    return b"".join(frames)


def settings_frame(settings: dict[Setting, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*item) for item in settings.items()))


def reset_frame(stream_id: int, code: ErrorCode) -> bytes:
    return frame(RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def window_frame(stream_id: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))


def goaway_frame(last_stream_id: int, code: ErrorCode, message: str = "") -> bytes:
    head = last_stream_id.to_bytes(4, "big") + code.to_bytes(4, "big")
    return frame(GOAWAY, 0, 0, head + message.encode())


SETTINGS_ACK = frame(SETTINGS, ACK, 0)


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """Pairs of identifier and value. Raises ConnectionFault."""
    if len(payload) % _SETTING.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS comes in pieces of 6 bytes")
    return _SETTING.iter_unpack(payload)


def read_number(payload: bytes, what: str) -> int:
    """The one 32-bit number of RST_STREAM and WINDOW_UPDATE. Raises ConnectionFault."""
    if len(payload) != 4:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"{what} has 4 bytes")
    return int.from_bytes(payload, "big")


def unpadded(payload: bytes) -> bytes:
    """What a frame with the flag PADDED carries. Raises ConnectionFault."""
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "more padding than the frame is long")
    return payload[1 : len(payload) - payload[0]]
