"""What a client is told, ready for either transport."""

from __future__ import annotations

import math
from typing import NamedTuple

from gateway.access.tokens import CHALLENGE
from gateway.errors import Cause, GrpcCode, Refused
from gateway.otlp.encoding import TAKEN
from gateway.otlp.media import Decoded, Media
from gateway.otlp.reply import failure, success
from gateway.receivers.headers import ACCEPTED_TYPES, CONTENT_TYPES

_GRPC_MESSAGE_CHARS = 1000
"""The message travels percent-encoded and once more in the details, and clients take 8 KiB of
metadata."""

_HINTS = {
    Cause.UNAUTHENTICATED: {"WWW-Authenticate": CHALLENGE},
    Cause.METHOD: {"Allow": "POST"},
    Cause.CONTENT_TYPE: {"Accept": ACCEPTED_TYPES},
    Cause.CONTENT_ENCODING: {"Accept-Encoding": TAKEN},
}
_CLOSING = frozenset({Cause.STOPPING, Cause.SLOW_CLIENT})


class Reply(NamedTuple):
    """The answer to one request: success if ``refused`` is None, and then maybe a partial one."""

    media: Media
    body: bytes
    """An ExportTraceServiceResponse, or a google.rpc.Status, in the form of ``media``."""
    refused: Refused | None = None

    @classmethod
    def of_success(cls, media: Media, decoded: Decoded) -> Reply:
        return cls(media, success(media, decoded))

    @classmethod
    def of_refusal(cls, media: Media, refused: Refused) -> Reply:
        return cls(media, failure(media, refused), refused)

    @property
    def http_status(self) -> int:
        return 200 if self.refused is None else self.refused.cause.value.http

    def http_headers(self) -> dict[str, str]:
        """All but Content-Length and Connection, which the transport knows best."""
        headers = {"Content-Type": CONTENT_TYPES[self.media]}
        if self.refused is not None:
            headers |= _HINTS.get(self.refused.cause, {})
            if self.refused.retry_after_s is not None:
                headers["Retry-After"] = str(max(1, math.ceil(self.refused.retry_after_s)))
        return headers

    @property
    def ends_connection(self) -> bool:
        """True where the client does better on a new connection."""
        return self.refused is not None and self.refused.cause in _CLOSING

    @property
    def grpc_code(self) -> int:
        return GrpcCode.OK if self.refused is None else self.refused.cause.value.grpc

    @property
    def grpc_message(self) -> str:
        return "" if self.refused is None else self.refused.message[:_GRPC_MESSAGE_CHARS]

    def grpc_trailers(self) -> tuple[tuple[str, bytes], ...]:
        """The Status with its RetryInfo, which gRPC clients read from the trailing metadata."""
        return () if self.refused is None else (("grpc-status-details-bin", self.body),)
