"""A started front door, in the shape that the suites of the other receivers know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from gateway.access.tls import Tls
from gateway.access.tokens import OPEN, Gate
from gateway.receivers.frontdoor.door import FrontDoor
from gateway.receivers.frontdoor.wire import Timing
from gateway.receivers.http import add_routes, make_runner
from tests.kit.receivers import HOST, MIB, Receivers, eventually

QUICK = Timing(tick_s=0.01)


async def ready(_request: web.Request) -> web.Response:
    """Something that only the general server serves."""
    return web.Response(text="ready")


@asynccontextmanager
async def started_door(
    *,
    memory_bytes: int = 64 * MIB,
    max_request_bytes: int = 4 * MIB,
    batch_spans: int = 8192,
    batch_bytes: int = 3 * MIB,
    idle_timeout_s: float = QUICK.body_idle_s,
    body_timeout_s: float = QUICK.body_s,
    message_timeout_s: float | None = None,
    max_calls: int = 0,  # the door has no such bound: calls hold nothing but budgeted memory
    timing: Timing = QUICK,
    handlers: dict | None = None,
    gate: Gate = OPEN.ingest,
    tls: Tls | None = None,
) -> AsyncIterator[Receivers]:
    """One door on one port for both protocols; the books are checked at the end."""
    receivers = Receivers(
        memory_bytes=memory_bytes,
        max_request_bytes=max_request_bytes,
        batch_spans=batch_spans,
        batch_bytes=batch_bytes,
        gate=gate,
    )
    context = None if tls is None else await asyncio.to_thread(tls.server_context)
    app = web.Application()
    add_routes(app, receivers.ingest, idle_timeout_s=idle_timeout_s, body_timeout_s=body_timeout_s)
    app.router.add_get("/ready", ready)
    receivers.runner = make_runner(app)
    await receivers.runner.setup()
    door = receivers.grpc = FrontDoor(
        receivers.ingest,
        general=receivers.runner.server,
        handlers={**receivers.health.methods(), **(handlers or {})},
        timing=timing._replace(
            body_idle_s=idle_timeout_s, body_s=message_timeout_s or body_timeout_s
        ),
    )
    try:
        receivers.http_port = receivers.grpc_port = await door.start(HOST, 0, tls=context)
        yield receivers
        await eventually(lambda: receivers.budget.used == 0)
        receivers.check_books()
    finally:
        await receivers.stop_grpc(1)
        await receivers.runner.cleanup()
