"""The development backend's process: OTLP gRPC in, Tempo's HTTP API and streamed queries out, all
on loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import grpc
import grpc.aio
from aiohttp import web

from gateway.embedded.api import API_VERSION, Api, check_tenant
from gateway.embedded.decode import BadRequestError
from gateway.embedded.metrics import Metrics
from gateway.embedded.parameters import ParameterError
from gateway.embedded.queries import Queries
from gateway.embedded.store import Store
from gateway.embedded.streaming import streaming_querier
from gateway.embedded.writer import Writer
from gateway.lifecycle import Tasks
from gateway.telemetry.logs import facts

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
MAX_MESSAGE_BYTES = 64 * 2**20
_PARENT_CHECK_S = 1.0
_EXPORT_RESPONSE = b""  # an ExportTraceServiceResponse that says nothing: all was taken
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Options(NamedTuple):
    """Ports may be 0 for any free one."""

    data_dir: Path
    otlp_port: int
    http_port: int
    retention_s: float
    max_bytes: int
    query_timeout_s: float


async def serve(options: Options) -> None:
    """Until SIGTERM, SIGINT or the end of the parent process. Raises StoreError and OSError."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    tasks = Tasks("embedded")
    _die_with_parent(tasks, stopping)
    store = await asyncio.to_thread(
        Store, options.data_dir, retention_s=options.retention_s, max_bytes=options.max_bytes
    )
    writer = Writer(store)
    metrics = Metrics(writer.counts, lambda: store.path.stat().st_size, API_VERSION)
    queries = Queries(store.path, metrics, query_timeout_s=options.query_timeout_s)
    try:
        async with (
            _http(options.http_port, Api(queries, metrics)) as http_port,
            _grpc(options.otlp_port, writer, queries) as otlp_port,
        ):
            for protocol, port in (("http", http_port), ("grpc", otlp_port)):
                logger.info("listening", extra=facts(protocol=protocol, address=HOST, port=port))
            await stopping.wait()
            logger.info("stopping")
            queries.stop()
    finally:
        await asyncio.to_thread(queries.close)
        await writer.stop()
        await asyncio.to_thread(store.close)
        await tasks.stop()


def _die_with_parent(tasks: Tasks, stopping: asyncio.Event) -> None:
    """By watching the number of the parent. Linux could send a signal (PR_SET_PDEATHSIG), but does
    so when the thread ends that started this process; only who starts it knows what that thread is.
    """
    parent = os.getppid()

    async def watch() -> None:
        while os.getppid() == parent:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(_PARENT_CHECK_S)
        stopping.set()

    tasks.spawn(watch(), "parent")


@contextlib.asynccontextmanager
async def _http(port: int, api: Api) -> AsyncIterator[int]:
    """Tempo's HTTP API; yields its port."""
    runner = web.AppRunner(api.application(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def _grpc(wanted_port: int, writer: Writer, queries: Queries) -> AsyncIterator[int]:
    """The OTLP receiver and the streamed queries; yields their port."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),  # else a second server takes the same port silently
            ("grpc.http2.min_ping_interval_without_data_ms", 5000),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
    )
    server.add_generic_rpc_handlers((_trace_service(writer), streaming_querier(queries)))
    try:
        port = server.add_insecure_port(f"{HOST}:{wanted_port}")
    except RuntimeError as error:
        raise OSError(f"port {wanted_port} cannot be bound: {error}") from error
    await server.start()
    try:
        yield port
    finally:
        await server.stop(grace=2)


def _trace_service(writer: Writer) -> grpc.GenericRpcHandler:
    async def export(payload: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        metadata = dict(context.invocation_metadata() or ())
        try:
            tenant = check_tenant(str(metadata.get("x-scope-orgid", "")))
            await writer.write(tenant, payload)
        except ParameterError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except BadRequestError as error:
            await context.abort(_CODES[error.code], str(error))
        return _EXPORT_RESPONSE

    return grpc.method_handlers_generic_handler(
        "opentelemetry.proto.collector.trace.v1.TraceService",
        {"Export": grpc.unary_unary_rpc_method_handler(export)},
    )
