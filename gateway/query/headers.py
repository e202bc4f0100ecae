"""Which header fields the proxy passes on (RFC 9110, section 7.6), and what they allow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from multidict import CIMultiDict

Fields = Iterable[tuple[str, str]]

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# The client speaks to the gateway. What it claims about other hops, or about a method or path
# other than those that were checked, is not for the backend's ears.
_CLAIMS = frozenset(
    {
        "forwarded",
        "x-real-ip",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
    }
)
_CLAIM_PREFIX = "x-forwarded-"
# No request body is passed on.
_OF_THE_BODY = frozenset({"content-length", "content-type", "content-encoding", "expect"})
TENANT_FIELD = "X-Scope-OrgID"

Trailers = Sequence[tuple[str, str | bytes]]
"""Metadata behind an answer of gRPC: bytes where the name ends in ``-bin``."""

_TRAILERS_BYTES = 4096
_DETAILS = "grpc-status-details-bin"
_GRPC_NAME = re.compile(r"[0-9a-z_.-]+")
_GRPC_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


def request_fields(fields: Fields) -> CIMultiDict[str]:
    """What the backend gets of a client's header. ``Host`` is left to the HTTP client."""
    return CIMultiDict(
        (name, value)
        for name, value in _end_to_end(fields)
        if (lower := name.lower()) not in _CLAIMS
        and lower not in _OF_THE_BODY
        and lower != "host"
        and not lower.startswith(_CLAIM_PREFIX)
    )


def response_fields(fields: Fields) -> CIMultiDict[str]:
    """What the client gets of the backend's header; the body goes with it as it is, encoded."""
    return CIMultiDict(_end_to_end(fields))


def call_fields(metadata: Fields) -> CIMultiDict[str]:
    """What the backend gets of the metadata of a call: as of a header, and nothing that belongs to
    gRPC itself, to its client library, or that gRPC could not carry.
    """
    return CIMultiDict(
        (name, value)
        for name, value in request_fields(metadata).items()
        if _is_own(name) and name != "user-agent" and is_carried(value)
    )


def is_carried(value: str) -> bool:
    """Whether metadata of gRPC can hold the value as it is."""
    return _GRPC_VALUE.fullmatch(value) is not None


def answer_trailers(metadata: Iterable[tuple[str, str | bytes]] | None) -> Trailers:
    """What the client gets of the metadata behind an answer: all or, if it is too much, nothing."""
    kept = tuple(
        (name, value)
        for name, value in metadata or ()
        if name == _DETAILS or (_is_own(name) and name not in _HOP_BY_HOP | _OF_THE_BODY)
    )
    return kept if sum(len(name) + len(value) for name, value in kept) <= _TRAILERS_BYTES else ()


def _is_own(name: str) -> bool:
    """False for pseudo-header fields, and for what gRPC has put there for itself."""
    return _GRPC_NAME.fullmatch(name) is not None and not name.startswith("grpc-")


def _end_to_end(fields: Fields) -> Iterator[tuple[str, str]]:
    fields = tuple(fields)
    named = {
        token.strip().lower()
        for name, value in fields
        if name.lower() == "connection"
        for token in value.split(",")
    }
    for name, value in fields:
        if name.lower() not in _HOP_BY_HOP and name.lower() not in named and _sendable(value):
            yield name, value


def _sendable(value: str) -> bool:
    """False for bytes that are no UTF-8: aiohttp reads them as surrogates and cannot write them."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def takes_gzip(accept_encoding: str) -> bool:
    """Whether an ``Accept-Encoding`` field allows gzip (RFC 9110, section 12.5.3)."""
    weights = dict(_codings(accept_encoding))
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _codings(accept_encoding: str) -> Iterator[tuple[str, float]]:
    for part in accept_encoding.lower().split(","):
        coding, _, parameter = part.partition(";")
        weight = re.fullmatch(r"\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*", parameter)
        yield coding.strip(), float(weight[1]) if weight else 1.0
