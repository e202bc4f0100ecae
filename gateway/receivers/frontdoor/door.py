"""Listeners and their connections, as one part that can be started and stopped."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping

from gateway.lifecycle import Tasks
from gateway.receivers.frontdoor.connection import Connection
from gateway.receivers.frontdoor.http1.answers import Answers
from gateway.receivers.frontdoor.http1.speaker import Http1
from gateway.receivers.frontdoor.http2.speaker import Http2
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
        self._answers = Answers()
        self._servers: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<FrontDoor {len(self._servers)} ports, {len(self._connections)} connections>"

    async def start(self, host: str, port: int, *, shared: bool = False) -> int:
        """Listen; returns the port, which is a free one for 0. ``shared``: with other processes
        that say so, too. Raises OSError when it is taken.
        """
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Connection(self, loop), host, port, backlog=_BACKLOG, reuse_port=shared
        )
        self._servers.append(server)
        if self._timer is None:
            self._timer = loop.call_later(self.timing.tick_s, self._tick)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    async def stop(self, timeout_s: float) -> int:
        """Close the listeners, send GOAWAY, let what is in hand finish; returns how many
        connections were cut at the deadline. Safe before ``start``, and twice.

        Connections that were handed over are the general server's to end.
        """
        for server in self._servers:
            server.close()
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
