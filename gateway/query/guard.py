"""Who may ask: the tokens for queries, in front of all that the web server serves."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from gateway.access.tokens import CHALLENGE, Gate
from gateway.errors import Cause, Refused
from gateway.telemetry.logs import Throttle, facts
from gateway.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_OPEN_PATHS = frozenset({"/", "/live", "/ready"})
"""A front page that tells nothing of the traces, and what a platform asks without a token."""
_RECEIVER_PREFIX = "/v1/"
"""It has a gate of its own."""

_GRANTED = web.RequestKey("granted_tenant", str)
_Next = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Guard:
    """Lets through what the gate admits. A path is closed unless it is known to be open, so that
    a new one is closed.
    """

    def __init__(self, gate: Gate, metrics: Metrics) -> None:
        self._gate = gate
        self._refusals = metrics.refused_requests
        self._throttle = Throttle()

    @web.middleware
    async def middleware(self, request: web.Request, handler: _Next) -> web.StreamResponse:
        if not self._gate.is_open and _is_closed(request):
            try:
                request[_GRANTED] = self._gate.admit(request.headers.getall("Authorization", ()))
            except Refused as refused:
                return self._tell(request, refused)
        return await handler(request)

    def _tell(self, request: web.Request, refused: Refused) -> web.Response:
        reason = refused.cause.value.reason
        self._refusals.series(reason).value += 1
        if (quiet := self._throttle.ready(reason)) is not None:
            logger.warning(
                "query refused",
                extra=facts(
                    reason=reason,
                    peer=request.remote,
                    path=request.path,
                    message=refused.message,
                    like_it=quiet or None,
                ),
            )
        body = {"error": reason, "reason": refused.message}
        fields = {"WWW-Authenticate": CHALLENGE} if refused.cause is Cause.UNAUTHENTICATED else {}
        return web.json_response(body, status=refused.cause.value.http, headers=fields)


def granted_tenant(request: web.Request) -> str:
    """The tenant of the token that a request was let through with; empty where it has none."""
    tenant: str = request.get(_GRANTED, "")
    return tenant


def _is_closed(request: web.Request) -> bool:
    if request.match_info.http_exception is not None or request.method == "OPTIONS":
        return False  # nothing is served there; what browsers ask before they may send a token
    path = request.path
    return path not in _OPEN_PATHS and not path.startswith(_RECEIVER_PREFIX)
