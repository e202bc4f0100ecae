"""A platform's router, as far as the gateway can tell: it ends TLS under the app's public name and
passes requests on to one container, the newest.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.kit.tunnel import copy


class Router:
    """``target`` is the port of the container that is served by it; 0 for none."""

    def __init__(self) -> None:
        self.port = 0
        self.target = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))


@asynccontextmanager
async def running_router(tls: ssl.SSLContext) -> AsyncIterator[Router]:
    router = Router()
    server = await asyncio.start_server(router.serve, "127.0.0.1", 0, ssl=tls)
    router.port = server.sockets[0].getsockname()[1]
    try:
        yield router
    finally:
        server.close()
