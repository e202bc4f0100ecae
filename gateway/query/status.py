"""``/live``, ``/ready``, ``/gateway/status`` and a plain ``/``: how the gateway is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from gateway.query.front import FRONT

Facts = Callable[[], Awaitable[Mapping[str, Any]]]
Readiness = Callable[[], "str | None"]
"""None when requests are taken and the backend answers, else the reason in words."""


def add_routes(
    app: web.Application,
    *,
    version: str,
    grpc_port: Callable[[], int],
    status: Facts,
    readiness: Readiness,
    front_page: str = FRONT,
) -> None:
    """Serve the gateway's own pages on ``app``."""

    async def front(_: web.Request) -> web.Response:
        return web.Response(text=front_page.format(version=version, grpc_port=grpc_port()))

    async def live(_: web.Request) -> web.Response:
        return web.Response(text="live\n")

    async def ready(_: web.Request) -> web.Response:
        reason = readiness()
        if reason is None:
            return web.Response(text="ready\n")
        return web.Response(status=503, text=f"not ready: {reason}\n", headers={"Retry-After": "1"})

    async def state(_: web.Request) -> web.Response:
        return web.json_response(await status(), headers={"Cache-Control": "no-store"})

    app.router.add_get("/", front)
    app.router.add_get("/live", live)
    app.router.add_get("/ready", ready)
    app.router.add_get("/gateway/status", state)
