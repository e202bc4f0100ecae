"""A port with a certificate: accepts, looks at the first byte, and shakes hands.

asyncio's own listener takes every connection for TLS, and can tell a client that speaks in plain
only by hanging up. Here the first byte decides, before anything is read: a handshake, or a
connection that is going to be told in its own words.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

from gateway.lifecycle import Tasks
from gateway.receivers.address import shown
from gateway.receivers.frontdoor.sniff import TLS_FIRST_BYTE
from gateway.telemetry.logs import Throttle, facts

logger = logging.getLogger(__name__)

LEAST_ENTERING, MOST_ENTERING = 64, 1024
"""Connections that have not shaken hands yet. A handshake takes milliseconds, so of more than these
the oldest is not going to finish."""

_HANDSHAKE_BYTES = 352 * 2**10
"""Of memory that one of them can take: OpenSSL reads a hello of up to 128 KiB, which is in several
buffers before it is whole (measured with hellos of 100 kB: 338 KiB)."""

_PAUSE_S = 1.0
"""After a failure to accept, such as no file descriptor being left."""


def most_entering(budget_bytes: int) -> int:
    """How many may be shaking hands where requests may hold so many bytes: as much again, at most.
    Nobody has shown a token yet, so it is not the requests' own memory that they take.
    """
    return max(LEAST_ENTERING, min(MOST_ENTERING, budget_bytes // _HANDSHAKE_BYTES))


class Porch:
    """Where clients stand until it is known what they speak. ``secured`` and ``plain`` make the
    protocols of connections over TLS and of those without it.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        secured: Callable[[], asyncio.Protocol],
        plain: Callable[[], asyncio.Protocol],
        timeout_s: float,
        most: int,
        throttle: Throttle,
    ) -> None:
        """``timeout_s`` is for the first byte and for the handshake together, and ``most`` how many
        may stand here at once.
        """
        self._context = context
        self._secured = secured
        self._plain = plain
        self._timeout_s = timeout_s
        self._most = most
        self._throttle = throttle
        self._listeners: list[socket.socket] = []
        self._tasks = Tasks("porch")
        self._entering: dict[socket.socket, asyncio.Timeout | None] = {}

    @property
    def entering(self) -> int:
        """Connections that have not shaken hands yet."""
        return len(self._entering)

    async def start(self, host: str, port: int, *, backlog: int, shared: bool = False) -> int:
        """Listen; returns the port, which is a free one for 0. Raises OSError when it is taken.
        ``shared``: with other processes that say so, too.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, *_, address in dict.fromkeys(found):
            self._listeners.append(_listen(family, address, backlog, shared=shared))
        for listener in self._listeners:
            self._tasks.spawn(self._accept(listener), "accept")
        bound: int = self._listeners[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Close the listeners and let go of those that have not shaken hands."""
        await self._tasks.stop()
        for each in (*self._listeners, *self._entering):
            each.close()
        self._listeners.clear()
        self._entering.clear()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, address = await loop.sock_accept(listener)
            except OSError as error:
                self._note("no connection accepted", str(error), "")
                await asyncio.sleep(_PAUSE_S)
                continue
            if len(self._entering) >= self._most:
                self._lose_patience()
            self._entering[client] = None
            self._tasks.spawn(self._enter(client, shown(address)), "enter")

    def _lose_patience(self) -> None:
        """With the one who has been here for longest, and is not about to go already."""
        client, patience = next(iter(self._entering.items()))
        if patience is None:
            return
        del self._entering[client]
        if not patience.expired():
            patience.reschedule(asyncio.get_running_loop().time())

    async def _enter(self, client: socket.socket, peer: str) -> None:
        entered = False
        try:
            async with asyncio.timeout(self._timeout_s) as patience:
                self._entering[client] = patience
                entered = await self._greet(client)
        except ConnectionResetError:
            return  # nobody is there to hear of it
        except OSError as error:  # TimeoutError and ssl.SSLError are two
            self._note("tls handshake failed", _words(error), peer)
        finally:
            self._entering.pop(client, None)
            if not entered:
                client.close()

    async def _greet(self, client: socket.socket) -> bool:
        """False if the client has left."""
        loop = asyncio.get_running_loop()
        await _readable(client)
        first = client.recv(1, socket.MSG_PEEK)
        if first == TLS_FIRST_BYTE:
            await loop.connect_accepted_socket(self._secured, client, ssl=self._context)
        elif first:
            await loop.connect_accepted_socket(self._plain, client)
        return bool(first)

    def _note(self, event: str, message: str, peer: str) -> None:
        quiet = self._throttle.ready(event)
        if quiet is not None:
            told = facts(peer=peer or None, message=message, like_it=quiet or None)
            logger.warning(event, extra=told)


async def _readable(client: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    there: asyncio.Future[None] = loop.create_future()
    loop.add_reader(client, _settle, there)
    try:
        await there
    finally:
        loop.remove_reader(client)


def _settle(there: asyncio.Future[None]) -> None:
    if not there.done():
        there.set_result(None)


def _listen(family: int, address: Any, backlog: int, *, shared: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:  # the other family has a socket of its own
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return str(error) or "the client took too long"
