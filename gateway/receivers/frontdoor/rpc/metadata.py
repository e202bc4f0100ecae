"""What a gRPC call says in its headers, and what it is told in headers and trailers; pure."""

from __future__ import annotations

import base64
import functools
import re
import urllib.parse
from collections.abc import Sequence

from gateway.errors import GrpcCode
from gateway.receivers.frontdoor.http2.headers import encode

CONTENT_TYPE = "application/grpc"
ACCEPTED_ENCODINGS = "identity,gzip,deflate,zstd"

_TIMEOUT = re.compile(r"([0-9]{1,18})([HMSmun])")
_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")

BEGIN = encode(
    (
        (":status", "200"),
        ("content-type", CONTENT_TYPE),
        ("grpc-accept-encoding", ACCEPTED_ENCODINGS),
    )
)
"""The header block before the messages of an answer."""

Metadata = Sequence[tuple[str, str]]


def is_grpc(content_type: str) -> bool:
    """``application/grpc``, alone or with the name of a codec, and parameters."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == CONTENT_TYPE or kind.startswith(CONTENT_TYPE + "+")


def read_timeout(text: str) -> float:
    """``grpc-timeout`` in seconds. Raises ValueError."""
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return int(match[1]) * _UNITS_S[match[2]]


def first(fields: Metadata, name: str) -> str | None:
    return next((value for key, value in fields if key == name), None)


def encoded(pairs: Sequence[tuple[str, str | bytes]]) -> tuple[tuple[str, str], ...]:
    """As they stand in a header block: bytes in base64."""
    return tuple(
        (name, _base64(value) if isinstance(value, bytes) else value) for name, value in pairs
    )


def trailers(code: int, message: str = "", details: bytes = b"", more: Metadata = ()) -> bytes:
    """The header block after the last message."""
    return encode((*_status(code, message, details), *more))


@functools.lru_cache(maxsize=64)
def trailers_only(
    code: int, message: str = "", details: bytes = b"", more: tuple[tuple[str, str], ...] = ()
) -> bytes:
    """The one header block of an answer without messages. Under overload the same is told to
    many, so the last ones are kept.
    """
    begin = (
        (":status", "200"),
        ("content-type", CONTENT_TYPE),
        ("grpc-accept-encoding", ACCEPTED_ENCODINGS),
    )
    return encode((*begin, *_status(code, message, details), *more))


def _status(code: int, message: str, details: bytes) -> Metadata:
    fields = [("grpc-status", str(int(code)))]
    if message:
        fields.append(("grpc-message", urllib.parse.quote(message, safe=_PRINTABLE)))
    if details:
        fields.append(("grpc-status-details-bin", _base64(details)))
    return fields


def _base64(value: bytes) -> str:
    """Unpadded, as all implementations send it and must take it."""
    return base64.b64encode(value).decode().rstrip("=")


OK_TRAILERS = trailers(GrpcCode.OK)
