"""OTLP over gRPC: grpcio's server as a thin adapter over ``Ingest`` and handlers of other methods.

grpcio hands over a message when it has read it whole, so the memory budget counts a message only
after the fact: clients that send large messages at the same time can take more memory than the
budget has. What bounds it is that a message has at most ``max_request_bytes`` and a slack, comes
within a time limit, and that at most ``max_calls`` calls are read at once. Messages come compressed
as they were sent and are inflated by ``Ingest``, within the budget.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from typing import Any, NoReturn, TypeAlias

import grpc
from grpc import aio

from gateway.access.tls import Tls
from gateway.errors import Cause, GrpcCode, Refused
from gateway.otlp.encoding import inflate
from gateway.otlp.media import Media
from gateway.receivers.admission import RETRY_AFTER_S
from gateway.receivers.books import Sender
from gateway.receivers.headers import CONTENT_TYPES, EXPORT_METHOD
from gateway.receivers.ingest import Head, Ingest
from gateway.receivers.methods import (
    FAILED,
    MAX_REQUEST_BYTES,
    Aborted,
    Handler,
    Metadata,
    Trailers,
)
from gateway.receivers.replies import Reply
from gateway.telemetry.logs import Throttle, facts

logger = logging.getLogger(__name__)

MAX_CALLS = 256
"""Calls in hand at once. Further ones are refused with a delay: grpcio's own limit would answer
RESOURCE_EXHAUSTED without RetryInfo, which makes clients throw their spans away, and its limit by
connection resets streams of clients that keep to it."""

MESSAGE_TIMEOUT_S = 60.0
"""Longest time for a whole message: 64 MiB at 9 Mbit/s."""

_SLACK_BYTES = 4 * 2**20
"""What grpcio may read beyond the limit, so that a message over the limit gets our answer, which
names the setting, and is counted. Larger ones get grpcio's, with the same code."""

_GZIP_MAGIC = b"\x1f\x8b"
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_Context: TypeAlias = "aio.ServicerContext[Any, Any]"
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def _options(max_request_bytes: int, *, shared: bool) -> list[tuple[str, int]]:
    return [
        (
            "grpc.so_reuseport",
            int(shared),
        ),  # else a second server takes the same port without an error
        ("grpc.max_receive_message_length", max_request_bytes + _SLACK_BYTES),
        ("grpc.per_message_decompression", 0),
        ("grpc.compression_enabled_algorithms_bitset", 0b101),  # identity and gzip, not deflate
        # Clients may ping as often as they like, also without a call; the default is to hang up on
        # those that do so more than once in 5 minutes.
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients that vanished are found, and connections through NAT stay known.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(tls.key, tls.certificate)], tls.client_ca, tls.client_ca is not None
    )


class GrpcServer:
    """Serves TraceService/Export and what it has handlers for; all else is UNIMPLEMENTED."""

    def __init__(
        self,
        ingest: Ingest,
        *,
        host: str,
        port: int,
        max_request_bytes: int,
        handlers: Mapping[str, Handler],
        tls: Tls | None = None,
        max_calls: int = MAX_CALLS,
        message_timeout_s: float = MESSAGE_TIMEOUT_S,
        shared: bool = False,
    ) -> None:
        """``handlers`` are methods other than Export, by path; ``port`` 0 takes any free one,
        and is ``shared`` with other processes that say so, too.
        """
        self._methods = _Methods(_Export(ingest, max_calls, message_timeout_s), handlers)
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._options = _options(max_request_bytes, shared=shared)
        self._tls = tls
        self._server: aio.Server | None = None

    async def start(self) -> int:
        """Bind and serve; returns the port. Raises OSError when it is taken."""
        server = aio.server(handlers=(self._methods,), options=self._options)
        try:
            if self._tls is None:
                port = server.add_insecure_port(self._address)
            else:
                port = server.add_secure_port(self._address, _credentials(self._tls))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._address} for gRPC: {error}") from error
        self._server = server
        await server.start()
        return port

    async def stop(self, timeout_s: float) -> None:
        """Send GOAWAY and finish the calls in hand; cancel those that take longer. Safe before
        ``start``, and twice.
        """
        if self._server is not None:
            await self._server.stop(timeout_s)


class _Methods(grpc.GenericRpcHandler):
    """Which handler serves which method, on raw bytes."""

    def __init__(self, export: _Export, handlers: Mapping[str, Handler]) -> None:
        self._not_served = export.not_served
        # Export is declared as a stream though it is one message: so the call is seen, and can be
        # refused, before its message is read. The two are the same on the wire.
        self._handlers: dict[str, _Handler] = {
            EXPORT_METHOD: grpc.stream_unary_rpc_method_handler(export.export),
        }
        # A method with one answer is the same on the wire as one with many.
        for path, handler in handlers.items():
            behaviour = functools.partial(_handle, path, handler)
            self._handlers[path] = grpc.unary_stream_rpc_method_handler(behaviour)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> _Handler:
        method = handler_call_details.method
        handler = self._handlers.get(method)
        if handler is None:
            behaviour = functools.partial(self._not_served, method)
            handler = grpc.stream_unary_rpc_method_handler(behaviour)
        return handler


class _CallContext:
    """The ``Context`` of one call."""

    def __init__(self, context: _Context) -> None:
        self.trailers: Trailers = ()
        self.peer = _peer(context)
        self.write = context.write
        self.time_remaining = context.time_remaining
        self._context = context

    @property
    def metadata(self) -> Metadata:
        pairs = self._context.invocation_metadata() or ()
        return [(name, value) for name, value in pairs if isinstance(value, str)]


async def _handle(path: str, handler: Handler, message: bytes, context: _Context) -> None:
    call = _CallContext(context)
    try:
        await handler(_request(message), call)
        context.set_trailing_metadata(tuple(call.trailers))
    except Aborted as aborted:
        await context.abort(_CODES[aborted.code], aborted.message, tuple(aborted.trailers))
    except Exception:
        logger.exception("call failed", extra=facts(path=path))
        await context.abort(grpc.StatusCode.INTERNAL, FAILED)


def _request(message: bytes) -> bytes:
    """Raises Aborted for a request that is too large, or cannot be inflated."""
    if len(message) > MAX_REQUEST_BYTES:
        text = f"the request is larger than {MAX_REQUEST_BYTES} bytes"
        raise Aborted(GrpcCode.RESOURCE_EXHAUSTED, text)
    if not message.startswith(_GZIP_MAGIC):
        return message
    try:
        return inflate(message, "gzip", max_bytes=MAX_REQUEST_BYTES)
    except Refused as refused:
        raise Aborted(refused.cause.value.grpc, refused.message) from refused


class _Export:
    """The handlers of one server."""

    def __init__(self, ingest: Ingest, max_calls: int, message_timeout_s: float) -> None:
        self._ingest = ingest
        self._max_calls = max_calls
        self._message_timeout_s = message_timeout_s
        self._calls = 0
        self._throttle = Throttle()

    async def export(self, _messages: AsyncIterator[bytes], context: _Context) -> bytes:
        if self._calls >= self._max_calls:
            return await _told(self._refused(self._busy(), context), context)
        self._calls += 1
        try:
            reply = await self._reply(context)
        finally:
            self._calls -= 1
        return await _told(reply, context)

    async def not_served(
        self, path: str, _messages: AsyncIterator[bytes], context: _Context
    ) -> bytes:
        replies: list[Reply] = []
        self._ingest.begin(_head(context, path=path), replies.append)
        return await _told(replies[0], context)

    async def _reply(self, context: _Context) -> Reply:
        try:
            self._ingest.tenant_of(_head(context))
        except Refused as refused:
            return self._refused(refused, context)
        try:
            async with asyncio.timeout(self._message_timeout_s):
                message = await context.read()
        except TimeoutError:
            return self._refused(self._too_slow(), context)
        if message is aio.EOF:
            await self._no_message(context)
        return await self._ingested(message, context)

    async def _ingested(self, message: bytes, context: _Context) -> Reply:
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def tell(reply: Reply) -> None:
            if not answer.done():  # it is cancelled when the client has left
                answer.set_result(reply)

        exchange = self._ingest.begin(_head(context, message=message), tell)
        exchange.feed(message)
        exchange.end()
        return await answer

    def _refused(self, refused: Refused, context: _Context) -> Reply:
        """The reply to a call that is refused for a reason of the transport's own."""
        replies: list[Reply] = []
        self._ingest.begin(_head(context), replies.append).refuse(refused)
        return replies[0]

    def _busy(self) -> Refused:
        message = f"{self._max_calls} calls are in hand already; send again later"
        return Refused(Cause.MEMORY_FULL, message, retry_after_s=RETRY_AFTER_S)

    def _too_slow(self) -> Refused:
        message = f"the message did not come within {self._message_timeout_s:g} s"
        return Refused(Cause.SLOW_CLIENT, f"{message}; send smaller batches or compress them")

    async def _no_message(self, context: _Context) -> NoReturn:
        """The client has left, or grpcio has refused its message, and does not tell us which; or
        the client sent none.
        """
        quiet = self._throttle.ready("no message")
        if quiet is not None:
            logger.warning(
                "otlp call without a message",
                extra=facts(
                    transport="grpc",
                    peer=_peer(context),
                    message="the client left, or its message was far over the limit"
                    " (GATEWAY_MAX_REQUEST_BYTES)",
                    like_it=quiet or None,
                ),
            )
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call carried no message")


async def _told(reply: Reply, context: _Context) -> bytes:
    if reply.refused is not None:
        code = _CODES[reply.grpc_code]
        await context.abort(code, reply.grpc_message, reply.grpc_trailers())
    return reply.body


def _head(context: _Context, *, path: str = EXPORT_METHOD, message: bytes = b"") -> Head:
    """``message``, with the compression of its own, is all of the body."""
    metadata = [(key, str(value)) for key, value in context.invocation_metadata() or ()]
    request_id = next((value for key, value in metadata if key == "x-request-id"), None)
    return Head(
        sender=Sender("grpc", _peer(context), request_id),
        method="POST",
        path=path,
        content_type=CONTENT_TYPES[Media.PROTOBUF],
        # grpcio keeps the flag of a compressed message to itself, but no request in protobuf can
        # begin like gzip does: 0x1f is a tag of a wire type that does not exist.
        content_encoding="gzip" if message.startswith(_GZIP_MAGIC) else "",
        tenants=[value for key, value in metadata if key == "x-scope-orgid"],
        authorization=[value for key, value in metadata if key == "authorization"],
    )


def _peer(context: _Context) -> str:
    """``ipv4:10.0.0.1:4711`` as ``10.0.0.1:4711``."""
    return urllib.parse.unquote(context.peer().partition(":")[2])
