"""Which header fields the proxy passes on (RFC 9110, section 7.6), and what they allow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

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
