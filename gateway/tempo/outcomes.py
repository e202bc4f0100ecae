"""What a backend's answer means for the data: the one table of Tempo's habits.

Pure. The habits were measured with Tempo 2.4.0, 2.10.8 and 3.0.3; the rules of OTLP are at
https://opentelemetry.io/docs/specs/otlp/#failures.
"""

from __future__ import annotations

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

_OPERATORS = frozenset(
    {
        GrpcCode.UNAUTHENTICATED,
        GrpcCode.PERMISSION_DENIED,
        GrpcCode.UNIMPLEMENTED,
        GrpcCode.NOT_FOUND,
    }
)

_NEVER_FITS = ("batch size", "larger than max", "too large", "exceeds maximum")
"""Texts of a RESOURCE_EXHAUSTED that no waiting helps: above the burst of the rate limit (Tempo
then still says when to come back), above a size of message."""


def outcome_of(
    code: int,
    message: str,
    *,
    retry_after_s: float | None = None,
    lost_connection: bool = False,
    name: str | None = None,
) -> Outcome:
    """The outcome of a delivery that was answered with a gRPC status ``code``.

    ``retry_after_s`` is the delay that the backend asked for, None where it asked for none;
    ``name`` replaces the code's in what is counted and logged.
    """
    if code == GrpcCode.RESOURCE_EXHAUSTED:
        fate = _exhausted(message, asked=retry_after_s is not None)
    else:
        fate = _FATES.get(code, Fate.RETRY)
    if code in _OPERATORS:
        retry_after_s = max(OPERATOR_DELAY_S, retry_after_s or 0.0)
    return Outcome(
        fate,
        name or NAMES.get(code, str(code)),
        message,
        retry_after_s if fate is Fate.RETRY else None,
        lost_connection=lost_connection,
    )


def _exhausted(message: str, *, asked: bool) -> Fate:
    """RESOURCE_EXHAUSTED is said of rates, which pass, and of sizes, which do not."""
    text = message.lower()
    if any(words in text for words in _NEVER_FITS):
        return Fate.SPLIT
    return Fate.RETRY if asked or "rate" in text else Fate.SPLIT


_HTTP_RETRY = frozenset({408, 429, 502, 503, 504})
_HTTP_OPERATOR = frozenset({401, 403, 404, 405, 407, 415})


def http_outcome(
    status: int, grpc_code: int, message: str, *, retry_after_s: float | None = None
) -> Outcome:
    """The outcome of a delivery over OTLP/HTTP that was not answered with 200.

    ``grpc_code`` is what the Status in the body says, 0 for none: Tempo 2.4.0 answers 500 to
    everything and tells the truth only there.
    """
    name = f"HTTP {status}"
    if status == 413:
        return outcome_of(GrpcCode.RESOURCE_EXHAUSTED, "too large", name=name)
    if status in _HTTP_RETRY or (status >= 500 and not grpc_code):
        code = GrpcCode.UNAVAILABLE
    elif status in _HTTP_OPERATOR:
        code = GrpcCode.NOT_FOUND
    else:
        code = grpc_code or GrpcCode.INVALID_ARGUMENT
    return outcome_of(code, message, retry_after_s=retry_after_s, name=name)
