"""A gRPC channel to the backend's query API: bytes there, bytes back, and how it ended.

The only part of the query side that knows grpcio, which is loaded with the first call.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

from gateway import __version__
from gateway.access.outbound import proxy_for, trusted_roots
from gateway.errors import GrpcCode
from gateway.query.headers import Trailers, answer_trailers

if TYPE_CHECKING:  # it takes 25 ms and 9 MiB
    from grpc import aio

_MESSAGE_CHARS = 2000
"""Of a status; more would not fit into the headers that clients take."""

_NOTICE_S = 0.2

_OPTIONS = (
    ("grpc.primary_user_agent", f"otlp-gateway/{__version__}"),
    # A query is repeated by who asked it, if at all.
    ("grpc.enable_retries", 0),
    # Nobody has to inflate what the gateway only passes on.
    ("grpc.compression_enabled_algorithms_bitset", 0b1),
    # What the backend may send ahead of a client that reads slowly. Left to itself, grpcio lets it
    # grow with the speed of the line.
    ("grpc.http2.lookahead_bytes", 2**18),
    ("grpc.http2.bdp_probe", 0),
    # grpcio waits up to two minutes between attempts to connect; a child is back in half a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Also how long an attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", 5000),
    # Servers of Go hang up on clients that ping more often than each 5 minutes.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.use_local_subchannel_pool", 1),
)


class Target(NamedTuple):
    """Where a backend's gRPC is: host and port of its HTTP API, as Grafana sees it too."""

    address: str
    proxy: str | None
    """URL of the proxy that leads there."""
    tls: bool
    authorization: str | None
    """By user and password of the URL."""

    @classmethod
    def of(cls, base_url: str) -> Target:
        parts = urlsplit(base_url)
        host, tls = parts.hostname or "localhost", parts.scheme == "https"
        shown = f"[{host}]" if ":" in host else host
        authorization = None
        if parts.username is not None:
            pair = b":".join(map(unquote_to_bytes, (parts.username, parts.password or "")))
            authorization = f"Basic {base64.b64encode(pair).decode()}"
        address = f"{shown}:{parts.port or (443 if tls else 80)}"
        return cls(address, proxy_for(base_url), tls, authorization)


class Ended(NamedTuple):
    """How a call ended."""

    code: int
    message: str = ""
    trailers: Trailers = ()


class LostError(Exception):
    """There is no connection to the backend, or none any more; the text is grpcio's."""


class Answer:
    """What comes back of one call."""

    def __init__(self, channel: aio.Channel, call: aio.UnaryStreamCall[bytes, bytes]) -> None:
        self._channel = channel
        self._call = call

    async def read(self) -> bytes | Ended:
        """The next message, or how the call ended. Nothing is read ahead but what fits into the
        window. Raises LostError.
        """
        from grpc import aio  # noqa: PLC0415 - see above

        try:
            message = await self._call.read()
            if isinstance(message, bytes):
                return message
            return Ended(GrpcCode.OK, "", answer_trailers(await self._call.trailing_metadata()))
        except aio.AioRpcError as error:
            return await self._ended(error)
        except asyncio.CancelledError:
            # grpcio also says so to callers when the channel is closed under them.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            raise LostError("the channel was closed") from None

    def cancel(self) -> None:
        """Tell the backend that nobody waits any more; nothing happens if it has ended."""
        self._call.cancel()

    async def _ended(self, error: aio.AioRpcError) -> Ended:
        code, message = error.code().value[0], (error.details() or "")[:_MESSAGE_CHARS]
        if code == GrpcCode.UNAVAILABLE and await self._is_gone():
            raise LostError(message) from error
        return Ended(code, message, answer_trailers(error.trailing_metadata()))

    async def _is_gone(self) -> bool:
        """Whether there is no connection. UNAVAILABLE is grpcio's word for that, and one that
        backends say too. Calls hear of a connection's end a moment before the channel does.
        """
        from grpc import ChannelConnectivity  # noqa: PLC0415 - see above

        if self._channel.get_state() is not ChannelConnectivity.READY:
            return True
        try:
            async with asyncio.timeout(_NOTICE_S):
                await self._channel.wait_for_state_change(ChannelConnectivity.READY)
        except TimeoutError:
            return False
        return True


class Channel:
    """To one target; connects with the first call, and again by itself."""

    def __init__(
        self, target: Target, *, max_message_bytes: int, root_certificates: bytes | None = None
    ) -> None:
        """``root_certificates`` is PEM, None for the system's."""
        import grpc  # noqa: PLC0415 - see above
        from grpc import aio  # noqa: PLC0415

        self.target = target
        # grpcio reads the variables in a way of its own, and not those in capitals.
        way = ("grpc.http_proxy", target.proxy) if target.proxy else ("grpc.enable_http_proxy", 0)
        options = (*_OPTIONS, way, ("grpc.max_receive_message_length", max_message_bytes))
        if target.tls:
            credentials = grpc.ssl_channel_credentials(root_certificates or trusted_roots())
            self._channel = aio.secure_channel(target.address, credentials, options=options)
        else:
            self._channel = aio.insecure_channel(target.address, options=options)

    def ask(
        self,
        path: str,
        message: bytes,
        *,
        metadata: Iterable[tuple[str, str]],
        deadline: float | None = None,
    ) -> Answer:
        """``deadline`` is of the monotonic clock."""
        timeout_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        method: aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(path)
        call = method(message, timeout=timeout_s, metadata=tuple(metadata), wait_for_ready=False)
        return Answer(self._channel, call)

    async def close(self) -> None:
        """Ends the calls that are under way."""
        await self._channel.close()
