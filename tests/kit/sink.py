"""A real OTLP gRPC server with a will of its own, behind a forwarder that can break connections.

What it does with a request is scripted: by the names of the spans in it, else the next reply of
the script, else OK. ``die`` resets every connection and loses what it has not flushed, as Tempo
does when it is killed; until ``revive`` its port refuses connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable
from enum import Enum
from typing import Any, NamedTuple

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from grpc import aio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

HOST = "127.0.0.1"
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_Context = aio.ServicerContext[bytes, bytes]
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, for no time: close() sends RST


class Deed(Enum):
    """What happens instead of an answer."""

    RESET = "break the connection"
    DIE = "die of it"
    HANG = "do not answer until let go"


class Reply(NamedTuple):
    """What one request gets."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""
    retry_after_s: float | None = None
    """Sent as RetryInfo."""
    rejected_spans: int = 0
    """Of a partial success."""
    deed: Deed | None = None


OK = Reply()
RESET, DIE, HANG = (Reply(deed=deed) for deed in Deed)


class Request(NamedTuple):
    """One call as it came."""

    tenant: str | None
    metadata: dict[str, str]
    size: int
    spans: tuple[Span, ...]

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.spans]


SpanKey = tuple[bytes, bytes]
"""Trace id and span id."""


def keys(spans: Iterable[Span]) -> list[SpanKey]:
    return [(span.trace_id, span.span_id) for span in spans]


class Sink:
    """Made by ``running_sink``. Everything may be changed while it runs."""

    def __init__(self, *, max_message_bytes: int, durable: bool) -> None:
        self._max_message_bytes = max_message_bytes
        self._durable = durable
        self._script: deque[Reply] = deque()
        self._by_name: dict[str, Reply] = {}
        self._let_go = asyncio.Event()
        self._turn = asyncio.Lock()
        self._spans_per_s: float | None = None
        self._hurried = asyncio.Event()
        self._connections: set[asyncio.StreamWriter] = set()
        self._front: asyncio.Server | None = None
        self._server: aio.Server | None = None
        self._server_port = 0
        self._unflushed: list[SpanKey] = []
        self.port = 0
        self.requests: list[Request] = []
        self.spans: Counter[SpanKey] = Counter()
        """What it has said OK to and not lost: how often it got each."""
        self.names: Counter[str] = Counter()
        """The names of all spans that it ever said OK to."""
        self.deaths = 0

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def alive(self) -> bool:
        return self._front is not None

    # -- its will --------------------------------------------------------------------------------

    def script(self, *replies: Reply) -> None:
        """What the next requests get, before it says OK again."""
        self._script.extend(replies)

    def answer_span(self, name: str, reply: Reply) -> None:
        """What every request gets that has a span of this name."""
        self._by_name[name] = reply

    def set_pace(self, spans_per_s: float | None) -> None:
        """Take requests one after the other, each for as long as its spans cost; with None as fast
        as they come.
        """
        self._spans_per_s = spans_per_s
        if spans_per_s is None:
            self._hurried.set()
        else:
            self._hurried.clear()

    def let_go(self) -> None:
        """Answer OK to those that hang, and to those that would."""
        self._let_go.set()

    def flush(self) -> None:
        """Bring everything to disk: the next death does not lose it."""
        self._unflushed.clear()

    def reset_connections(self) -> None:
        for writer in tuple(self._connections):
            _abort(writer)

    async def die(self) -> None:
        """Reset every connection, refuse new ones, lose what was not flushed. Safe twice."""
        if self._front is None:
            return
        self.deaths += 1
        self.spans.subtract(self._unflushed)
        self.spans = +self.spans
        self._unflushed.clear()
        front, self._front = self._front, None
        front.close()
        self.reset_connections()

    async def revive(self) -> None:
        """Listen again, on the same port."""
        assert self._front is None, "it lives"
        self._front = await asyncio.start_server(self._forward, HOST, self.port)

    # -- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        options = [
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", self._max_message_bytes),
        ]
        self._server = aio.server(handlers=(_Service(self._export),), options=options)
        self._server_port = self._server.add_insecure_port(f"{HOST}:0")
        await self._server.start()
        self._front = await asyncio.start_server(self._forward, HOST, 0)
        self.port = self._front.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self.let_go()
        if self._front is not None:
            self._front.close()
        self.reset_connections()
        await self._server.stop(None)
        while self._connections:
            await asyncio.sleep(0.001)

    # -- the forwarder ---------------------------------------------------------------------------

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            to_server = await asyncio.open_connection(HOST, self._server_port)
            self._connections.add(to_server[1])
            try:
                await asyncio.gather(_copy(reader, to_server[1]), _copy(to_server[0], writer))
            finally:
                self._connections.discard(to_server[1])
                to_server[1].close()
        except OSError:
            pass  # one of the two ends has gone, as tests make them
        finally:
            self._connections.discard(writer)
            writer.close()

    # -- the service -----------------------------------------------------------------------------

    async def _export(self, body: bytes, context: _Context) -> bytes:
        request = _read(body, context)
        self.requests.append(request)
        reply = self._reply_to(request)
        if self._spans_per_s is not None:
            await self._take_time(len(request.spans) / self._spans_per_s)
        if reply.deed is Deed.HANG:
            await self._let_go.wait()
        elif reply.deed is Deed.RESET:
            self.reset_connections()
        elif reply.deed is Deed.DIE:
            await self.die()
        if reply.deed in (Deed.RESET, Deed.DIE):
            await context.abort(grpc.StatusCode.INTERNAL, "never arrives")
        if reply.code is not grpc.StatusCode.OK:
            details = (("grpc-status-details-bin", _status(reply)),) if reply.retry_after_s else ()
            await context.abort(reply.code, reply.message, details)
        return self._take(request, reply)

    async def _take_time(self, seconds: float) -> None:
        async with self._turn:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._hurried.wait()

    def _reply_to(self, request: Request) -> Reply:
        for name in request.names:
            if name in self._by_name:
                return self._by_name[name]
        return self._script.popleft() if self._script else OK

    def _take(self, request: Request, reply: Reply) -> bytes:
        taken = keys(request.spans)
        self.spans.update(taken)
        if not self._durable:
            self._unflushed += taken
        self.names.update(request.names)
        response = ExportTraceServiceResponse()
        if reply.rejected_spans:
            response.partial_success.rejected_spans = reply.rejected_spans
            response.partial_success.error_message = reply.message
        return response.SerializeToString()


@contextlib.asynccontextmanager
async def running_sink(
    *, max_message_bytes: int = 64 * 2**20, durable: bool = False
) -> AsyncIterator[Sink]:
    """A sink that listens on a port of the system's choice. A ``durable`` one has on its disk what
    it says OK to.
    """
    sink = Sink(max_message_bytes=max_message_bytes, durable=durable)
    await sink.start()
    try:
        yield sink
    finally:
        await sink.stop()


class _Service(grpc.GenericRpcHandler):
    def __init__(self, export: Any) -> None:
        self._handler: Any = grpc.unary_unary_rpc_method_handler(export)

    def service(self, handler_call_details: Any) -> Any:
        return self._handler if handler_call_details.method == EXPORT else None


def _read(body: bytes, context: _Context) -> Request:
    metadata = {
        str(key): value if isinstance(value, str) else value.decode(errors="replace")
        for key, value in context.invocation_metadata() or ()
    }
    spans = tuple(
        span
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    )
    return Request(metadata.get("x-scope-orgid"), metadata, len(body), spans)


def _status(reply: Reply) -> bytes:
    assert reply.retry_after_s is not None
    seconds, nanos = divmod(round(reply.retry_after_s * 1e9), 10**9)
    detail = AnyMessage()
    detail.Pack(RetryInfo(retry_delay=Duration(seconds=seconds, nanos=nanos)))
    status = Status(code=reply.code.value[0], message=reply.message, details=[detail])
    return bytes(status.SerializeToString())


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one end closes; then nothing is left to be said on this connection."""
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
    _abort(writer)


def _abort(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
