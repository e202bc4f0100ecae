"""A plain OTLP/HTTP receiver that answers as a test tells it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web


class Site:
    """An OTLP/HTTP receiver with a scripted answer."""

    def __init__(self) -> None:
        self.answer: Callable[[], web.Response] = lambda: web.Response(body=b"")
        self.let_go = asyncio.Event()
        self.let_go.set()
        self.break_connection = False
        self.endless = False
        """Answers with a page that has no end."""
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append(
            (request.path, {k.lower(): v for k, v in request.headers.items()}, body)
        )
        await self.let_go.wait()
        if self.break_connection:
            assert request.transport is not None
            request.transport.abort()
        if self.endless:
            page = web.StreamResponse(status=500)
            await page.prepare(request)
            while True:  # until the client hangs up
                await page.write(b"<" * 10_000)
        return self.answer()


@asynccontextmanager
async def running_site(
    host: str = "127.0.0.1", port: int = 0, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Site]:
    """A site, on a port of the system's choice for 0."""
    site = Site()
    app = web.Application(client_max_size=2**30)
    app.router.add_post("/v1/traces", site.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, host, port, ssl_context=tls).start()
    scheme = "http" if tls is None else "https"
    site.url = f"{scheme}://{host}:{runner.addresses[0][1]}/v1/traces"
    try:
        yield site
    finally:
        site.let_go.set()
        await runner.cleanup()
