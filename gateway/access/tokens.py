"""Who may send spans and who may ask for them, by the token a request shows; pure.

Digests are compared, each of them whatever the others gave, so that the time it takes tells nothing
about a token (CVE-2024-42368 was a comparison byte by byte).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import NamedTuple

from gateway.credentials import MOST_TOKEN_CHARS, Token
from gateway.errors import Cause, Refused

CHALLENGE = 'Bearer realm="otlp-gateway", Basic realm="otlp-gateway", charset="UTF-8"'
"""For ``WWW-Authenticate`` with 401 (RFC 9110, section 11.6.1)."""

_MOST_FIELD_CHARS = 4 * MOST_TOKEN_CHARS
"""Of an ``Authorization`` that is looked at: base64 takes a third more, and a user name comes with
it. Headers have bounds of their own; this one is for the time that hashing takes."""


class _Entry(NamedTuple):
    digest: bytes
    tenant: str


def _digest(token: str) -> bytes:
    # Headers are read as UTF-8, and bytes that are none as surrogates.
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _entries(tokens: Sequence[Token]) -> Sequence[_Entry]:
    return tuple(_Entry(_digest(token.secret), token.tenant) for token in tokens)


class _Side(NamedTuple):
    purpose: str
    """For people."""
    setting: str
    entries: Sequence[_Entry]


class Gate:
    """One side of the gateway: whoever shows one of its tokens may pass, and everybody where it
    has none.
    """

    def __init__(self, own: _Side, other: _Side) -> None:
        self.is_open = not own.entries
        self.purpose = own.purpose
        self.setting = own.setting
        """Where its tokens are set."""
        self._own = own
        self._other = other

    def admit(self, authorization: Sequence[str]) -> str:
        """The tenant that the request is for, whatever it says itself; empty where it may say so
        itself: with a token that stands for no tenant, and where the gate is open.

        ``authorization`` is every value of that field. Raises Refused: UNAUTHENTICATED for a token
        that is missing or not known, FORBIDDEN for one that is known at the other gate only.
        """
        if self.is_open:
            return ""
        own, other = self._own, self._other
        digest = _digest(_token(own.purpose, authorization))
        found = _find(own.entries, digest)
        if found is not None:
            return found.tenant
        if _find(other.entries, digest) is not None:
            raise Refused(
                Cause.FORBIDDEN,
                f"this token is for {other.purpose}, and {own.purpose} takes one of {own.setting}",
            )
        raise Refused(
            Cause.UNAUTHENTICATED, f"the token is not known; send one of {own.setting} as it stands"
        )


class Gates(NamedTuple):
    """Both sides."""

    ingest: Gate
    query: Gate

    @classmethod
    def of(cls, *, ingest: Sequence[Token] = (), query: Sequence[Token] = ()) -> Gates:
        sending = _Side("sending spans", "GATEWAY_INGEST_TOKENS", _entries(ingest))
        asking = _Side("asking for traces", "GATEWAY_QUERY_TOKENS", _entries(query))
        return cls(Gate(sending, asking), Gate(asking, sending))


OPEN = Gates.of()
"""Without any token."""


def authorization_for(tokens: Sequence[Token], tenant: str) -> str | None:
    """``Authorization`` for spans of ``tenant`` towards a gateway that has these ingest tokens: the
    tenant's own, else one that stands for no tenant and lets the request name it. None where it
    asks for none, or has none that fits.
    """
    for wanted in (tenant, ""):
        for token in tokens:
            if token.tenant == wanted:
                return f"Bearer {token.secret}"
    return None


def _find(entries: Sequence[_Entry], digest: bytes) -> _Entry | None:
    found = None
    for entry in entries:  # to the end, also when it is found
        if hmac.compare_digest(entry.digest, digest):
            found = entry
    return found


def _token(purpose: str, authorization: Sequence[str]) -> str:
    """The token that a request shows. Raises Refused."""
    if not authorization:
        raise _unreadable(f"{purpose} takes a token, and there is none")
    if len(authorization) > 1:
        raise _unreadable("Authorization is there more than once")
    scheme, _, credentials = authorization[0].strip().partition(" ")
    credentials = credentials.strip()
    if len(credentials) > _MOST_FIELD_CHARS:
        raise _unreadable("Authorization is too long to hold a token")
    if scheme.lower() == "bearer" and credentials:
        return credentials
    if scheme.lower() == "basic" and credentials:
        return _password(credentials)
    raise _unreadable("Authorization holds neither Bearer nor Basic credentials")


def _password(credentials: str) -> str:
    """Of ``user:password`` in base64; the password may hold colons, the user name may not
    (RFC 7617).
    """
    try:
        text = base64.b64decode(credentials, validate=True).decode("utf-8", "surrogateescape")
    except ValueError:
        raise _unreadable("the Basic credentials are no base64") from None
    _, colon, password = text.partition(":")
    if not colon:
        raise _unreadable("the Basic credentials have no colon")
    return password


def _unreadable(what: str) -> Refused:
    return Refused(
        Cause.UNAUTHENTICATED,
        f"{what}; send Authorization: Bearer TOKEN, or Basic with the token as the password",
    )
