"""A backend that does what a test tells it, a gateway in front of it, and raw clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from aiohttp import web

HOST = "127.0.0.1"
DEADLINE_S = 10.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Facts:
    """What the query side is told of the backend (an ``Upstream``)."""

    base_url: str | None = None
    state: str = "ready"
    reason: str = ""
    default_tenant: str = ""
    mode: str = "external"

    @property
    def streaming_url(self) -> str | None:
        return self.base_url


@dataclass
class Seen:
    """A request as the backend got it."""

    method: str
    target: str
    fields: list[tuple[str, str]]
    body: bytes

    def names(self) -> set[str]:
        return {name.lower() for name, _ in self.fields}

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]


@dataclass
class Backend:
    """A real HTTP server. ``answer`` is called for each request after it was written down."""

    url: str = ""
    requests: list[Seen] = field(default_factory=list)
    answer: Handler | None = None
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        fields = [(name, value) for name, value in request.headers.items()]
        body = await request.read()
        self.requests.append(Seen(request.method, request.raw_path, fields, body))
        self.arrived.set()
        if self.answer is None:
            return web.Response(text="fine\n")
        return await self.answer(request)


@contextlib.asynccontextmanager
async def serve(app: web.Application) -> AsyncIterator[int]:
    """Run an application as the gateway runs its own; gives the port."""
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def scripted_backend() -> AsyncIterator[Backend]:
    backend = Backend()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", backend.handle)
    async with serve(app) as port:
        backend.url = f"http://{HOST}:{port}"
        yield backend


@contextlib.asynccontextmanager
async def raw_backend(
    script: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server that speaks as it likes; gives its URL. The connection ends with the script."""

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await script(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve_one, HOST, 0)
    try:
        yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def connection(
    port: int,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def request_bytes(
    target: str,
    *,
    method: str = "GET",
    fields: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    version: str = "1.1",
) -> bytes:
    """A request as bytes, with nothing made valid on the way."""
    lines = [f"{method} {target} HTTP/{version}", "Host: gateway.test"]
    lines += [f"{name}: {value}" for name, value in fields]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


@dataclass
class Reply:
    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]


async def ask_raw(port: int, request: bytes) -> Reply:
    """Send bytes, read until the connection ends. Add ``Connection: close`` to the request."""
    async with asyncio.timeout(DEADLINE_S), connection(port) as (reader, writer):
        writer.write(request)
        raw = await reader.read()
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    fields = [
        (name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])
    ]
    return Reply(int(lines[0].split()[1]), fields, body)
