"""The chunked transfer coding (RFC 9112, section 7.1), strictly; pure.

llhttp reads it too, but does not say where a body ends, and requests may follow it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum, auto

_MAX_LINE_BYTES = 512
_MAX_TRAILER_BYTES = 8 * 2**10
_FREE_CHUNKS = 1000
_LEAST_CHUNK_BYTES = 16
"""On average, beyond the first chunks: a chunk costs a microsecond, however small it is."""

_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_FIELD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n")


class MalformedError(Exception):
    """A body that is not framed as its head says; the message is for the sender."""


class _Stage(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILERS = auto()
    COMPLETE = auto()


class Chunks:
    """Takes one chunked body apart. ``body`` gets the pieces."""

    def __init__(self, body: Callable[[bytes], None]) -> None:
        self._body = body
        self._stage = _Stage.SIZE
        self._line = b""
        self._left = 0
        self._count = 0
        self._body_bytes = 0
        self._trailer_bytes = 0

    @property
    def complete(self) -> bool:
        return self._stage is _Stage.COMPLETE

    def feed(self, data: bytes) -> int:
        """How much of ``data`` belongs to this body. Raises MalformedError."""
        at, end = 0, len(data)
        while at < end and not self.complete:
            at = self._read_data(data, at) if self._left else self._read_line(data, at)
        return at

    def _read_data(self, data: bytes, at: int) -> int:
        piece = data[at : at + self._left]
        self._left -= len(piece)
        self._body_bytes += len(piece)
        self._body(piece)
        if not self._left:
            self._stage = _Stage.DATA_END
        return at + len(piece)

    def _read_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at) + 1 or len(data)
        line = self._line + data[at:end]
        if len(line) > _MAX_LINE_BYTES:
            raise MalformedError("a line between the chunks of the body is too long")
        if line.endswith(b"\n"):
            self._line = b""
            self._on_line(line)
        else:
            self._line = line
        return end

    def _on_line(self, line: bytes) -> None:
        if self._stage is _Stage.SIZE:
            self._on_size(line)
        elif self._stage is _Stage.DATA_END:
            if line != b"\r\n":
                raise MalformedError("a chunk of the body is longer than its size says")
            self._stage = _Stage.SIZE
        elif line == b"\r\n":
            self._stage = _Stage.COMPLETE
        else:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > _MAX_TRAILER_BYTES or not _FIELD.fullmatch(line):
                raise MalformedError("the trailers of the body are too long or no header fields")

    def _on_size(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise MalformedError("the size of a chunk of the body is no hexadecimal number")
        self._left = int(match[1], 16)
        self._count += 1
        if self._count > _FREE_CHUNKS + self._body_bytes // _LEAST_CHUNK_BYTES:
            raise MalformedError("the body comes in too many tiny chunks; send larger ones")
        self._stage = _Stage.DATA if self._left else _Stage.TRAILERS
