"""A gRPC server that does what a test tells it, behind a line that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc import aio

from tests.query.scripted import HOST

Script = Callable[[bytes, Any], Awaitable[None]]


@dataclass
class Asked:
    """A call as the backend got it."""

    path: str
    message: bytes
    metadata: list[tuple[str, str | bytes]]
    time_remaining: float | None
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its script has ended, or was ended."""

    def values(self, name: str) -> list[str | bytes]:
        return [value for key, value in self.metadata if key == name]


@dataclass
class GrpcBackend:
    """Serves any method: ``script`` is called for each call after it was written down."""

    script: Script | None = None
    calls: list[Asked] = field(default_factory=list)

    async def handle(self, path: str, message: bytes, context: Any) -> None:
        metadata = [(name, value) for name, value in context.invocation_metadata()]
        asked = Asked(path, message, metadata, context.time_remaining())
        self.calls.append(asked)
        try:
            if self.script is None:
                await context.write(b"fine")
            else:
                await self.script(message, context)
        finally:
            asked.over.set()


class _Any(grpc.GenericRpcHandler):
    def __init__(self, backend: GrpcBackend) -> None:
        self._backend = backend

    def service(self, details: Any) -> Any:
        async def behaviour(message: bytes, context: Any) -> None:
            await self._backend.handle(details.method, message, context)

        return grpc.unary_stream_rpc_method_handler(behaviour)


@contextlib.asynccontextmanager
async def grpc_server(
    backend: GrpcBackend, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[int]:
    options = [("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]
    server = aio.server(handlers=(_Any(backend),), options=options)
    if credentials is None:
        port = server.add_insecure_port(f"{HOST}:0")
    else:
        port = server.add_secure_port("localhost:0", credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


class Line:
    """Carries bytes between clients and one port, counts them, and can be cut."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._writers: list[asyncio.StreamWriter] = []
        self.connections = 0
        self.received = 0
        """Bytes that came back from the port."""

    @contextlib.asynccontextmanager
    async def laid(self) -> AsyncIterator[str]:
        """Gives the URL of its near end."""
        server = await asyncio.start_server(self._carry, HOST, 0)
        try:
            yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            self.cut()
            await server.wait_closed()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _carry(self, near: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        self.connections += 1
        far, far_out = await asyncio.open_connection(HOST, self._to)
        self._writers += [near_out, far_out]
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._pump(near, far_out), self._pump(far, near_out, back=True))

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, back: bool = False
    ) -> None:
        try:
            while piece := await source.read(2**16):
                self.received += len(piece) if back else 0
                sink.write(piece)
                await sink.drain()
        finally:
            sink.close()
