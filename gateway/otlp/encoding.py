"""Content encodings: inflating in a stream, under a limit that holds while inflating.

Nothing is believed that a sender announces: sizes in headers are ignored, output is cut into
pieces and counted, and the window of zstd is bounded.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import NoReturn, Protocol

import zstandard

from gateway.errors import Cause, Refused

TAKEN = "identity, gzip, deflate, zstd"

_PIECE_BYTES = 256 * 1024
"""Most that one step of gzip or deflate puts out."""
_STEP_BYTES = 64 * 1024
"""Input of one such step: what a step does not use is copied, so it stays small."""
_ZSTD_STEP_BYTES = 512
"""A step of zstd cannot be told where to stop. A block of 4 bytes makes at most 128 KiB, so this
input makes at most 16 MiB. (215 kB of spans: 140 us; 256 bytes 180 us, unbounded 90 us.)"""
_ZSTD_WINDOW_BYTES = 8 * 1024 * 1024
"""What every decoder should support (RFC 8878, section 3.1.1.1.2), and no more."""
_MAX_MEMBERS = 4096
"""A body may consist of many members or frames, but they cost time even where they are empty."""


class _Stream(Protocol):
    """What zlib's and zstandard's objects have in common: one member or frame."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def unconsumed_tail(self) -> bytes: ...


class Inflater:
    """Turns the pieces of a body as sent into the pieces of the request.

    Raises Refused: CONTENT_ENCODING for a label that is not TAKEN, TOO_LARGE as soon as more than
    ``max_bytes`` come out, MALFORMED for data that is damaged, cut off or not what the label says.
    """

    __slots__ = ("_label", "_max_bytes", "_members", "_size", "_start", "_step", "_stream")

    def __init__(self, encoding: str, *, max_bytes: int) -> None:
        self._label = encoding.strip().lower()
        if self._label not in _STARTS:
            raise Refused(
                Cause.CONTENT_ENCODING,
                f"content encoding {encoding[:64]!r} is not supported; send one of {TAKEN}",
            )
        self._start, self._step = _STARTS[self._label]
        self._max_bytes = max_bytes
        self._size = 0
        self._members = 0
        self._stream: _Stream | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What comes out for the next piece of the body, not larger than a few MiB at a time."""
        if self._start is None:
            self._count(data)
            if data:
                yield data
            return
        for offset in range(0, len(data), self._step):
            for piece in self._inflate(data[offset : offset + self._step], self._start):
                self._count(piece)
                yield piece

    def finish(self) -> Iterator[bytes]:
        """The body has ended: raises Refused if the compressed data has not."""
        if self._start is not None and not (self._stream and self._stream.eof):
            self._malformed("it is cut off")
        yield from ()

    def _inflate(self, data: bytes, start: Callable[[int], _Stream]) -> Iterator[bytes]:
        full = False
        while data or full:
            if self._stream is None or self._stream.eof:
                self._stream = self._next_member(data, start)
            stream = self._stream
            try:
                piece = stream.decompress(data, _PIECE_BYTES)
            except (zlib.error, zstandard.ZstdError) as error:
                self._malformed(str(error))
            if piece:
                yield piece
            data = stream.unused_data if stream.eof else stream.unconsumed_tail
            full = len(piece) == _PIECE_BYTES and not stream.eof

    def _next_member(self, data: bytes, start: Callable[[int], _Stream]) -> _Stream:
        self._members += 1
        if self._members > 1 and self._label == "deflate":
            self._malformed("there are bytes behind its end")
        if self._members > _MAX_MEMBERS:
            self._malformed(f"it has more than {_MAX_MEMBERS} members")
        return start(data[0])

    def _count(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max_bytes:
            raise Refused(
                Cause.TOO_LARGE,
                f"the request is larger than {self._max_bytes} bytes (GATEWAY_MAX_REQUEST_BYTES),"
                " which also holds after decompression; send smaller batches",
            )

    def _malformed(self, problem: str) -> NoReturn:
        raise Refused(
            Cause.MALFORMED,
            f"the body is not valid {self._label} data: {problem}; check that the content encoding"
            " names how the body is compressed, once, and that the body is sent whole",
        )


def inflate(body: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """The whole body at once; raises Refused as ``Inflater`` does."""
    inflater = Inflater(encoding, max_bytes=max_bytes)
    pieces = [*inflater.feed(body), *inflater.finish()]
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class _ZstdFrame:
    """One zstd frame in the shape of a zlib object."""

    __slots__ = ("_frame",)
    unconsumed_tail = b""

    def __init__(self) -> None:
        context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
        self._frame = context.decompressobj()

    def decompress(self, data: bytes, _max_length: int, /) -> bytes:
        return self._frame.decompress(data)

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data


def _gzip_member(_first_byte: int) -> _Stream:
    return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)


def _deflate_stream(first_byte: int) -> _Stream:
    """HTTP's deflate is zlib's format (RFC 9110, section 8.4.1.2); some senders leave its header
    out. A header's first byte ends in 8, which no encoder writes at the start of raw deflate.
    """
    wrapped = first_byte & 0x0F == 8
    return zlib.decompressobj(wbits=zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)


def _zstd_frame(_first_byte: int) -> _Stream:
    return _ZstdFrame()


_STARTS: dict[str, tuple[Callable[[int], _Stream] | None, int]] = {
    "": (None, 0),
    "identity": (None, 0),
    "gzip": (_gzip_member, _STEP_BYTES),
    "x-gzip": (_gzip_member, _STEP_BYTES),
    "deflate": (_deflate_stream, _STEP_BYTES),
    "zstd": (_zstd_frame, _ZSTD_STEP_BYTES),
}
"""How a member begins, by label, and the bytes of input of one step."""
