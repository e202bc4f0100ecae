"""Listeners and their connections, as one part that can be started and stopped."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable, Mapping

from gateway.lifecycle import Tasks
from gateway.receivers.frontdoor.connection import Connection
from gateway.receivers.frontdoor.http1.answers import Answers
from gateway.receivers.frontdoor.http1.speaker import Http1
from gateway.receivers.frontdoor.http2.speaker import Http2
from gateway.receivers.frontdoor.plaintext import TlsOnly
from gateway.receivers.frontdoor.porch import Porch, most_entering
from gateway.receivers.frontdoor.rpc.calls import Calls
from gateway.receivers.frontdoor.wire import Timing
from gateway.receivers.ingest import Ingest
from gateway.receivers.methods import Handler
from gateway.telemetry.logs import Throttle, facts

logger = logging.getLogger(__name__)

_BACKLOG = 1024
"""Connections that wait to be accepted: clients come back all at once after a restart."""


class FrontDoor:
    """Serves every protocol on each port it is started on."""

    def __init__(
        self,
        ingest: Ingest,
        *,
        general: Callable[[], asyncio.Protocol],
        handlers: Mapping[str, Handler],
        timing: Timing | None = None,
    ) -> None:
        """``general`` makes the protocol of one connection of the general HTTP server, such as
        ``AppRunner.server`` after ``setup()``. ``handlers`` are gRPC methods other than Export, by
        path.
        """
        self.timing = timing or Timing()
        self.throttle = Throttle()
        self.general = general
        self._ingest = ingest
        self._tasks = Tasks("rpc")
        self._calls = Calls(ingest, handlers, self._tasks.spawn, self.timing)
        self._tls_only = TlsOnly(ingest, self.timing)
        self._answers = Answers()
        self._servers: list[asyncio.Server] = []
        self._porches: list[Porch] = []
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<FrontDoor {len(self._servers)} ports, {len(self._connections)} connections>"

    async def start(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        shared: bool = False,
    ) -> int:
        """Listen; returns the port, which is a free one for 0. ``shared``: with other processes
        that say so, too. Raises OSError when it is taken.

        With ``tls`` the port takes nothing else.
        """
        loop = asyncio.get_running_loop()
        if tls is not None:
            bound = await self._open_porch(tls, host, port, shared=shared)
        else:
            server = await loop.create_server(
                lambda: Connection(self, loop), host, port, backlog=_BACKLOG, reuse_port=shared
            )
            self._servers.append(server)
            bound = server.sockets[0].getsockname()[1]
        if self._timer is None:
            self._timer = loop.call_later(self.timing.tick_s, self._tick)
        return bound

    async def _open_porch(self, tls: ssl.SSLContext, host: str, port: int, *, shared: bool) -> int:
        loop = asyncio.get_running_loop()
        porch = Porch(
            tls,
            secured=lambda: Connection(self, loop),
            plain=lambda: Connection(self, loop, must_refuse=True),
            timeout_s=self.timing.head_s,
            most=most_entering(self._ingest.budget.limit),
            throttle=self.throttle,
        )
        self._porches.append(porch)
        return await porch.start(host, port, backlog=_BACKLOG, shared=shared)

    async def stop(self, timeout_s: float) -> int:
        """Close the listeners, send GOAWAY, let what is in hand finish; returns how many
        connections were cut at the deadline. Safe before ``start``, and twice.

        Connections that were handed over are the general server's to end.
        """
        for server in self._servers:
            server.close()
        for porch in self._porches:
            await porch.stop()
        now = asyncio.get_running_loop().time()
        for connection in tuple(self._connections):
            connection.drain(now)
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            logger.warning("connections cut", extra=facts(count=len(self._connections)))
        cut = len(self._connections)
        for connection in tuple(self._connections):
            connection.abort()
        await self._tasks.stop()
        await self._empty.wait()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._servers.clear()
        self._porches.clear()
        return cut

    # -- for connections ----------------------------------------------------------------------

    def joined(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._empty.clear()

    def left(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def http1(self, connection: Connection, now: float) -> Http1:
        retire_at = self._retirement(now)
        return Http1(connection, self._ingest, self._answers, self.timing, now, retire_at=retire_at)

    def http2(self, connection: Connection, now: float) -> Http2:
        retire_at = self._retirement(now)
        return Http2(connection, self._calls, self.timing, now, retire_at=retire_at)

    def refuse_http1(self, connection: Connection) -> bytes:
        return self._tls_only.http1(connection.peer)

    def refuse_http2(self, connection: Connection, now: float) -> Http2:
        retire_at = self._retirement(now)
        return Http2(connection, self._tls_only, self.timing, now, retire_at=retire_at)

    def _retirement(self, now: float) -> float:
        return now + self.timing.max_age_s * random.uniform(0.9, 1.1)  # noqa: S311 - to spread

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in tuple(self._connections):
            try:
                connection.check(now)
            except Exception:
                logger.exception("connection failed", extra=facts(connection=repr(connection)))
                connection.abort()
        self._timer = loop.call_later(self.timing.tick_s, self._tick)
