"""A proxy that makes tunnels (CONNECT), as companies have them at the way out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager


class Tunnel:
    """Knows where names lead, and remembers who was asked for."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        self._ports = ports
        self.asked: list[str] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b" ", 2)
        assert method == b"CONNECT", head
        self.asked.append(target.decode())
        port = self._ports[target.decode()]
        there = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def running_tunnel(ports: Mapping[str, int]) -> AsyncIterator[Tunnel]:
    """``ports``: of loopback, by ``name:port`` as clients ask for them."""
    tunnel = Tunnel(ports)
    server = await asyncio.start_server(tunnel.serve, "127.0.0.1", 0)
    tunnel.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield tunnel
    finally:
        server.close()
