"""Tokens and tenants as values: what they look like, and how a setting holds them; pure."""

from __future__ import annotations

import dataclasses
import re

LEAST_TOKEN_CHARS, MOST_TOKEN_CHARS = 8, 512

# What Tempo takes as the id of a tenant: it becomes part of a path in its storage.
# https://grafana.com/docs/mimir/latest/configure/about-tenant-ids/
_TENANT = re.compile(r"[A-Za-z0-9!\-_.*'()]{1,150}")
TENANT_RULE = "1 to 150 letters, digits and ! - _ . * ' ( ), but not . or .. alone"

_VISIBLE = re.compile(r"[\x21-\x7e]+")
"""What every client can send: a field of a header is not sure to keep anything else."""


class TokenFault(ValueError):  # noqa: N818 - what is wrong with a setting, not with the program
    """A list of tokens that cannot be used. The text names no token."""


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """One entry of a list."""

    secret: str = dataclasses.field(repr=False)
    tenant: str = ""
    """Whose spans it is for; empty where it stands for no tenant."""


def is_tenant(text: str) -> bool:
    return _TENANT.fullmatch(text) is not None and text not in {".", ".."}


def parse_tokens(text: str) -> tuple[Token, ...]:
    """``token`` or ``tenant=token``, comma separated. Raises TokenFault."""
    tokens = [_parse_entry(item.strip(), place) for place, item in enumerate(text.split(","), 1)]
    places: dict[str, int] = {}
    for place, token in enumerate(tokens, 1):
        first = places.setdefault(token.secret, place)
        if first != place:
            raise TokenFault(f"entries {first} and {place} have the same token; give each its own")
    return tuple(tokens)


def _parse_entry(entry: str, place: int) -> Token:
    tenant, equals, secret = entry.partition("=")
    if not equals or not secret.strip("="):  # base64 is padded with =
        tenant, secret = "", entry
    elif not is_tenant(tenant):
        raise TokenFault(f"entry {place}: before the = there is no tenant, which has {TENANT_RULE}")
    if not secret:
        raise TokenFault(f"entry {place} is empty; write token or tenant=token, comma separated")
    if _VISIBLE.fullmatch(secret) is None:
        raise TokenFault(f"entry {place}: a token has visible ASCII characters only, and no blanks")
    if not LEAST_TOKEN_CHARS <= len(secret) <= MOST_TOKEN_CHARS:
        raise TokenFault(
            f"entry {place}: a token has {LEAST_TOKEN_CHARS} to {MOST_TOKEN_CHARS} characters;"
            " make one with: openssl rand -hex 16"
        )
    return Token(secret, tenant)
