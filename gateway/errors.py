"""Refusals: why a request was not taken, and whether the same request can succeed later.

One table maps each cause to what the two transports say. 429 and a bare RESOURCE_EXHAUSTED are
never used for overload: the Python SDK does not retry the first
(open-telemetry/opentelemetry-python#3122), and OTLP calls the second final unless RetryInfo is
attached.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class GrpcCode:
    """The status codes the gateway uses, by number, so that pure parts need no gRPC library."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Answer(NamedTuple):
    """How a refusal is told on each transport."""

    reason: str
    """Value of the ``reason`` label of ``gateway_refused_requests_total``."""
    http: int
    grpc: int
    retry: bool
    """True where the same request can succeed later; the answer then carries a delay."""
    meaning: str
    """For docs/refusals.md."""


class Cause(Enum):
    """Every reason for which a whole request is refused."""

    MALFORMED = Answer(
        "malformed",
        400,
        GrpcCode.INVALID_ARGUMENT,
        False,
        "the body is no OTLP request: undecodable, truncated, badly compressed",
    )
    TOO_DEEP = Answer(
        "too_deep",
        400,
        GrpcCode.INVALID_ARGUMENT,
        False,
        "values are nested deeper than 64 levels, which can bring Tempo down",
    )
    TOO_LARGE = Answer(
        "too_large",
        413,
        GrpcCode.RESOURCE_EXHAUSTED,
        False,
        "larger than GATEWAY_MAX_REQUEST_BYTES, or than memory could ever hold",
    )
    CONTENT_TYPE = Answer(
        "content_type",
        415,
        GrpcCode.INVALID_ARGUMENT,
        False,
        "neither application/x-protobuf nor application/json",
    )
    CONTENT_ENCODING = Answer(
        "content_encoding",
        415,
        GrpcCode.UNIMPLEMENTED,
        False,
        "none of identity, gzip, deflate, zstd",
    )
    METHOD = Answer("method", 405, GrpcCode.UNIMPLEMENTED, False, "not a POST")
    NOT_FOUND = Answer(
        "not_found",
        404,
        GrpcCode.UNIMPLEMENTED,
        False,
        "nothing is served under this path or method",
    )
    UNAUTHENTICATED = Answer(
        "unauthenticated", 401, GrpcCode.UNAUTHENTICATED, False, "the token is missing or wrong"
    )
    FORBIDDEN = Answer(
        "forbidden", 403, GrpcCode.PERMISSION_DENIED, False, "the token is for something else"
    )
    PLAINTEXT = Answer(
        "plaintext",
        426,
        GrpcCode.FAILED_PRECONDITION,
        False,
        "the port has a certificate (GATEWAY_TLS_CERT) and takes TLS only",
    )
    SLOW_CLIENT = Answer(
        "slow_client", 408, GrpcCode.DEADLINE_EXCEEDED, False, "the body did not arrive in time"
    )
    MEMORY_FULL = Answer(
        "memory_full", 503, GrpcCode.UNAVAILABLE, True, "GATEWAY_MEMORY_BYTES is in use"
    )
    SPOOL_FULL = Answer(
        "spool_full",
        503,
        GrpcCode.UNAVAILABLE,
        True,
        "GATEWAY_SPOOL_BYTES is in use since the backend is behind",
    )
    SPOOL_FAILED = Answer(
        "spool_failed", 503, GrpcCode.UNAVAILABLE, True, "the disk refuses to be written"
    )
    RATE_LIMITED = Answer(
        "rate_limited",
        503,
        GrpcCode.UNAVAILABLE,
        True,
        "more than this tenant may send at the moment",
    )
    STOPPING = Answer("stopping", 503, GrpcCode.UNAVAILABLE, True, "this instance is going away")
    INTERNAL = Answer(
        "internal",
        500,
        GrpcCode.INTERNAL,
        False,
        "a fault of the gateway's own, to be found in its log",
    )


class Refused(Exception):  # noqa: N818 - an outcome that travels, not a fault of the program
    """A request that was not taken. ``message`` is meant for the sender and names the remedy."""

    def __init__(self, cause: Cause, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message
        self.retry_after_s = retry_after_s
        """Seconds until a retry makes sense; set exactly where ``cause.value.retry`` is true."""
