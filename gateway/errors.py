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


class Cause(Enum):
    """Every reason for which a whole request is refused."""

    MALFORMED = Answer("malformed", 400, GrpcCode.INVALID_ARGUMENT, False)
    TOO_DEEP = Answer("too_deep", 400, GrpcCode.INVALID_ARGUMENT, False)
    TOO_LARGE = Answer("too_large", 413, GrpcCode.RESOURCE_EXHAUSTED, False)
    CONTENT_TYPE = Answer("content_type", 415, GrpcCode.INVALID_ARGUMENT, False)
    CONTENT_ENCODING = Answer("content_encoding", 415, GrpcCode.UNIMPLEMENTED, False)
    METHOD = Answer("method", 405, GrpcCode.UNIMPLEMENTED, False)
    NOT_FOUND = Answer("not_found", 404, GrpcCode.UNIMPLEMENTED, False)
    UNAUTHENTICATED = Answer("unauthenticated", 401, GrpcCode.UNAUTHENTICATED, False)
    FORBIDDEN = Answer("forbidden", 403, GrpcCode.PERMISSION_DENIED, False)
    SLOW_CLIENT = Answer("slow_client", 408, GrpcCode.DEADLINE_EXCEEDED, False)
    MEMORY_FULL = Answer("memory_full", 503, GrpcCode.UNAVAILABLE, True)
    SPOOL_FULL = Answer("spool_full", 503, GrpcCode.UNAVAILABLE, True)
    SPOOL_FAILED = Answer("spool_failed", 503, GrpcCode.UNAVAILABLE, True)
    RATE_LIMITED = Answer("rate_limited", 503, GrpcCode.UNAVAILABLE, True)
    STOPPING = Answer("stopping", 503, GrpcCode.UNAVAILABLE, True)
    INTERNAL = Answer("internal", 500, GrpcCode.INTERNAL, False)


class Refused(Exception):  # noqa: N818 - an outcome that travels, not a fault of the program
    """A request that was not taken. ``message`` is meant for the sender and names the remedy."""

    def __init__(self, cause: Cause, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message
        self.retry_after_s = retry_after_s
        """Seconds until a retry makes sense; set exactly where ``cause.value.retry`` is true."""
