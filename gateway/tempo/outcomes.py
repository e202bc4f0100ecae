"""What a backend's answer means for the data: the one table of Tempo's habits.

Pure. The habits were measured with Tempo 2.4.0, 2.10.8 and 3.0.3, the words of grpcio with 1.85;
the rules of OTLP are at https://opentelemetry.io/docs/specs/otlp/#failures.
"""

from __future__ import annotations

import re

from gateway.envelope import Fate, Outcome
from gateway.errors import GrpcCode

NAMES = {value: name for name, value in vars(GrpcCode).items() if isinstance(value, int)}

OPERATOR_DELAY_S = 10.0
"""Least delay after an answer that only an operator can change: a token, an address."""

_FATES = {
    GrpcCode.OK: Fate.DELIVERED,
    # OTLP's list of what may pass.
    GrpcCode.CANCELLED: Fate.RETRY,
    GrpcCode.DEADLINE_EXCEEDED: Fate.RETRY,
    GrpcCode.ABORTED: Fate.RETRY,
    GrpcCode.OUT_OF_RANGE: Fate.RETRY,
    GrpcCode.UNAVAILABLE: Fate.RETRY,
    GrpcCode.DATA_LOSS: Fate.RETRY,
    # Tempo 2.4.0 says so to everything while it stops.
    GrpcCode.UNKNOWN: Fate.RETRY,
    # Not the data's fault: the same bytes succeed once the operator has mended the way to the
    # backend, so nothing is given up.
    GrpcCode.UNAUTHENTICATED: Fate.RETRY,
    GrpcCode.PERMISSION_DENIED: Fate.RETRY,
    GrpcCode.UNIMPLEMENTED: Fate.RETRY,
    GrpcCode.NOT_FOUND: Fate.RETRY,
    # The data's fault. INTERNAL is Tempo's word for what it cannot decode.
    GrpcCode.INVALID_ARGUMENT: Fate.REFUSED,
    GrpcCode.INTERNAL: Fate.REFUSED,
    GrpcCode.FAILED_PRECONDITION: Fate.REFUSED,
    GrpcCode.ALREADY_EXISTS: Fate.REFUSED,
}
"""RESOURCE_EXHAUSTED is missing: its text decides."""

OPERATOR_CODES = frozenset(
    {
        GrpcCode.UNAUTHENTICATED,
        GrpcCode.PERMISSION_DENIED,
        GrpcCode.UNIMPLEMENTED,
        GrpcCode.NOT_FOUND,
    }
)

_TOO_MUCH_AT_ONCE = re.compile(
    r"batch size|larger than max|too large|exceeds maximum", re.IGNORECASE
)
"""Texts that no waiting helps: above the burst of the rate limit (Tempo 2.8 and later; it then
still says when to come back), above a size of message."""
_TOO_FAST = re.compile(r"\brate[ _-]?limit", re.IGNORECASE)

_TRANSPORT = re.compile(
    r"^Stream removed|^Socket closed|^Connection reset|^Broken pipe", re.IGNORECASE
)
_HARMLESS_END = re.compile(r"GOAWAY|error code 7\)")
"""A peer that stops in good order, or has not touched the request (REFUSED_STREAM)."""


def outcome_of(
    code: int,
    message: str,
    *,
    retry_after_s: float | None = None,
    name: str | None = None,
) -> Outcome:
    """The outcome of a delivery that was answered with a gRPC status ``code``.

    ``retry_after_s`` is the delay that the backend asked for, None where it asked for none;
    ``name`` replaces the code's in what is counted and logged.
    """
    if _TRANSPORT.search(message):
        # grpcio's words, not the peer's, whatever the code: a broken connection, a stream reset.
        broken = not _HARMLESS_END.search(message)
        return Outcome(Fate.RETRY, _name(code), message, lost_connection=broken)
    if code == GrpcCode.RESOURCE_EXHAUSTED:
        fate = _exhausted(message, asked=retry_after_s is not None)
    else:
        fate = _FATES.get(code, Fate.RETRY)
    if code in OPERATOR_CODES:
        retry_after_s = max(OPERATOR_DELAY_S, retry_after_s or 0.0)
    return Outcome(
        fate, name or _name(code), message, retry_after_s if fate is Fate.RETRY else None
    )


def _name(code: int) -> str:
    return NAMES.get(code, str(code))


def _exhausted(message: str, *, asked: bool) -> Fate:
    """RESOURCE_EXHAUSTED is said of rates, which pass, and of sizes, which do not. Without a word
    for either, the backend's wish for a retry decides (OTLP: no RetryInfo, no retry).
    """
    if _TOO_MUCH_AT_ONCE.search(message):
        return Fate.SPLIT
    return Fate.RETRY if asked or _TOO_FAST.search(message) else Fate.SPLIT


def lost(message: str) -> Outcome:
    """The connection broke under a delivery, over HTTP."""
    return Outcome(Fate.RETRY, "UNAVAILABLE", message, lost_connection=True)


_HTTP_CODES = {
    400: GrpcCode.INVALID_ARGUMENT,
    408: GrpcCode.UNAVAILABLE,
    409: GrpcCode.ALREADY_EXISTS,
    413: GrpcCode.RESOURCE_EXHAUSTED,
    422: GrpcCode.INVALID_ARGUMENT,
    425: GrpcCode.UNAVAILABLE,
    429: GrpcCode.RESOURCE_EXHAUSTED,
}
"""What an HTTP status means where the body says nothing."""


def is_misdirected(status: int) -> bool:
    """A redirect, 401, 404, 405, 415 and the like: it is the address or the headers that are
    wrong, not the spans.
    """
    return status < 500 and status not in _HTTP_CODES


def http_outcome(
    status: int, grpc_code: int, message: str, *, retry_after_s: float | None = None
) -> Outcome:
    """The outcome of a delivery over OTLP/HTTP whose answer was not 2xx.

    ``grpc_code`` is what the Status in the body says, 0 for none: Tempo 2.4.0 answers 500 to
    everything and tells the truth only there.
    """
    name = f"HTTP {status}"
    if is_misdirected(status):
        return outcome_of(GrpcCode.NOT_FOUND, message, retry_after_s=retry_after_s, name=name)
    if status == 413 or (status == 400 and _TOO_MUCH_AT_ONCE.search(message)):
        return Outcome(Fate.SPLIT, name, message)  # Tempo says 400 to what is too large
    if status == 429 and retry_after_s is None:
        retry_after_s = 0.0  # 429 is an invitation to come back, unlike RESOURCE_EXHAUSTED
    if status in {502, 503, 504}:
        grpc_code = GrpcCode.UNAVAILABLE
    code = grpc_code or _HTTP_CODES.get(status, GrpcCode.UNAVAILABLE)
    outcome = outcome_of(code, message, retry_after_s=retry_after_s, name=name)
    return outcome._replace(retry_after_s=outcome.retry_after_s or None)
