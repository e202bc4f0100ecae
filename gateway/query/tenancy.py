"""Whose traces a query is about; pure, for HTTP and gRPC alike."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.errors import Cause, Refused


def tenant_asked(granted: str, named: Sequence[str], default: str) -> str:
    """``granted`` is the tenant of the token, which nobody overrides; ``named`` every value of
    X-Scope-OrgID, where Tempo takes several tenants as ``a|b``; ``default`` the backend's. Empty
    where none of them says anything.

    Raises Refused where it is named more than once: one of them may be from a proxy on the way,
    and nobody knows which.
    """
    if granted:
        return granted
    named = [name for name in named if name]
    if len(named) > 1:
        message = "X-Scope-OrgID is there more than once; send it once, several tenants as a|b"
        raise Refused(Cause.MALFORMED, message)
    return named[0] if named else default
