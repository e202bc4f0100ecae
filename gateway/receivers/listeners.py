"""The two ports: by the front door, or by the servers of aiohttp and grpcio.

``FrontDoorListeners`` speak every protocol on each port. ``LibraryListeners`` are the reference
and the way out: HTTP on one port, gRPC on the other.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from gateway.access.tls import Tls
from gateway.receivers.address import Address, PortTaken
from gateway.receivers.frontdoor.door import FrontDoor
from gateway.receivers.health import Health
from gateway.receivers.http import make_runner
from gateway.receivers.ingest import Ingest
from gateway.receivers.methods import Handler

if TYPE_CHECKING:
    from gateway.receivers.grpc import GrpcServer

Serving = Callable[[], bool]


class Listeners(Protocol):
    """Either kind."""

    async def start(self, address: Address, *, shared: bool = False) -> Address:
        """Bind and serve; returns the ports that were bound. ``shared``: with other processes of
        the same user that say so, too. Raises PortTaken.
        """

    async def stop(self, timeout_s: float) -> None:
        """Close the listeners and answer what is in hand. Safe before ``start``, and twice."""


class FrontDoorListeners:
    """Our own server on both ports; what is not hot it hands to aiohttp's."""

    def __init__(
        self,
        app: web.Application,
        ingest: Ingest,
        serving: Serving,
        methods: Mapping[str, Handler],
        tls: Tls | None = None,
    ) -> None:
        """``methods`` are gRPC methods beside Export and Health, by path. With ``tls`` the gRPC
        port takes nothing else.
        """
        self._ingest = ingest
        self._tls = tls
        self._runner = make_runner(app)
        self._health = Health(serving)
        self._methods = {**methods, **self._health.methods()}
        self._door: FrontDoor | None = None

    async def start(self, address: Address, *, shared: bool = False) -> Address:
        await self._runner.setup()
        server = self._runner.server
        assert server is not None  # noqa: S101 - setup has made it
        self._door = FrontDoor(self._ingest, general=server, handlers=self._methods)
        http_port = None
        if address.http_port is not None:
            http_port = await self._listen("PORT", address.host, address.http_port, shared)
        tls = None
        if self._tls is not None:  # in a thread, since it uses a file
            tls = await asyncio.to_thread(self._tls.server_context)
        grpc_port = await self._listen(
            address.grpc_setting, address.host, address.grpc_port, shared, tls
        )
        return address._replace(http_port=http_port, grpc_port=grpc_port)

    async def _listen(
        self,
        setting: str,
        host: str,
        port: int,
        shared: bool,  # noqa: FBT001
        tls: ssl.SSLContext | None = None,
    ) -> int:
        assert self._door is not None  # noqa: S101 - start has made it
        try:
            return await self._door.start(host, port, tls=tls, shared=shared)
        except OSError as error:
            raise PortTaken(setting, port, error) from error

    async def stop(self, timeout_s: float) -> None:
        self._health.stop()
        if self._door is not None:
            await asyncio.gather(self._door.stop(timeout_s), self._ingest.stop(timeout_s))
        await self._runner.cleanup()


class LibraryListeners:
    """aiohttp on the HTTP port, if there is one, and grpcio on the other."""

    def __init__(
        self,
        app: web.Application,
        ingest: Ingest,
        serving: Serving,
        methods: Mapping[str, Handler],
        tls: Tls | None = None,
    ) -> None:
        """As for the other kind."""
        self._ingest = ingest
        self._tls = tls
        self._health = Health(serving)
        self._methods = {**methods, **self._health.methods()}
        self._runner = make_runner(app)
        self._site: web.TCPSite | None = None
        self._grpc: GrpcServer | None = None

    async def start(self, address: Address, *, shared: bool = False) -> Address:
        from gateway.receivers.grpc import GrpcServer  # noqa: PLC0415 - loads grpcio

        await self._runner.setup()
        http_port = None
        if address.http_port is not None:
            http_port = await self._start_http(address.host, address.http_port, shared)
        self._grpc = GrpcServer(
            self._ingest,
            host=address.host,
            port=address.grpc_port,
            max_request_bytes=self._ingest.limits.request_bytes,
            handlers=self._methods,
            shared=shared,
            tls=self._tls,
        )
        try:
            grpc_port = await self._grpc.start()
        except OSError as error:
            raise PortTaken(address.grpc_setting, address.grpc_port, error) from error
        return address._replace(http_port=http_port, grpc_port=grpc_port)

    async def _start_http(self, host: str, port: int, shared: bool) -> int:  # noqa: FBT001
        self._site = web.TCPSite(
            self._runner, host, port, reuse_address=True, reuse_port=shared, backlog=1024
        )
        try:
            await self._site.start()
        except OSError as error:
            raise PortTaken("PORT", port, error) from error
        return int(self._runner.addresses[0][1])

    async def stop(self, timeout_s: float) -> None:
        self._health.stop()
        if self._site is not None:
            await self._site.stop()
            self._site = None
        if self._grpc is not None:
            await asyncio.gather(self._ingest.stop(timeout_s), self._grpc.stop(timeout_s))
        await self._runner.cleanup()
