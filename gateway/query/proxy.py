"""Passes queries on to the backend's HTTP API and streams the answers back.

Allow-listed reads only (``routes``). The backend's status, text and encoding are kept; where there
is no answer to keep, the client gets JSON that says in words what is wrong. The web server must
run with ``handler_cancellation=True``: a client that leaves then ends its query in the backend.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from gateway.access.outbound import proxy_for
from gateway.errors import Refused
from gateway.query import failure
from gateway.query.backend import Upstream, open_session
from gateway.query.failure import Failure
from gateway.query.form import read_form
from gateway.query.headers import TENANT_FIELD, request_fields, response_fields
from gateway.query.routes import PREFIXES, SEARCH, clean_query, find_route, with_window
from gateway.query.tenancy import tenant_asked
from gateway.telemetry.logs import Throttle, facts
from gateway.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

TenantOf = Callable[[web.Request], str]
"""Gives the tenant that a request's credentials stand for; empty where they name none."""


class Limits(NamedTuple):
    """Bounds on what clients and the backend can make the gateway hold or wait for."""

    concurrent: int = 64
    """Queries under way at once; the next is told to come back."""
    connect_timeout_s: float = 5.0
    first_byte_timeout_s: float = 25.0
    """From a client's request to the backend's first byte: platforms cut at 30 s without words."""
    idle_timeout_s: float = 50.0
    """Between two pieces of an answer, also where it is the client that does not read on."""
    form_bytes: int = 64 * 2**10
    """Of a query sent by POST. One in a URL is bounded by the web server's longest line."""


_DEFAULT = Limits()


class Proxy:
    """The query side of one backend."""

    def __init__(
        self,
        upstream: Upstream,
        metrics: Metrics,
        limits: Limits,
        tenant_of: TenantOf | None,
    ) -> None:
        self._upstream = upstream
        self._requests = metrics.query_requests
        self._limits = limits
        self._tenant_of = tenant_of
        self._in_flight = 0
        self._throttle = Throttle()
        self._session: aiohttp.ClientSession

    async def life(self, _app: web.Application) -> AsyncIterator[None]:
        """Keeps the connections to the backend while the application runs (``cleanup_ctx``)."""
        async with open_session(connect_timeout_s=self._limits.connect_timeout_s) as session:
            self._session = session
            yield

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        route = find_route(path)
        if route is None:
            return failure.not_listed().response(self._upstream.state)
        try:
            if request.method not in route.methods:
                raise failure.wrong_method(route.methods)
            with self._admitted():
                return await self._answer(request, path, query)
        except Failure as told:
            self._note(str(told.status), path, told.reason, told.__cause__)
            return told.response(self._upstream.state)
        except asyncio.CancelledError:
            self._requests.series("client_left").value += 1
            raise

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._in_flight >= self._limits.concurrent:
            raise failure.busy(self._in_flight)
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    async def _answer(self, request: web.Request, path: str, query: str) -> web.StreamResponse:
        deadline = asyncio.get_running_loop().time() + self._limits.first_byte_timeout_s
        if request.method == "POST":  # Tempo reads parameters only from the query string
            form = await read_form(request, max_bytes=self._limits.form_bytes, deadline=deadline)
            query = "&".join(filter(None, (query, form)))
        if path == SEARCH and self._upstream.mode == "managed":
            query = with_window(query, time.time())
        url = self._url(path, query)
        fields = self._fields(request, url)
        async with await self._ask(request.method, url, fields, deadline) as answer:
            return await self._relay(request, answer)

    def _url(self, path: str, query: str) -> URL:
        if (base := self._upstream.base_url) is None:
            raise failure.unavailable(self._upstream.reason or f"it is {self._upstream.state}")
        # As the client encoded it: a tag that was encoded twice must arrive encoded twice.
        target = f"{path}?{clean_query(query)}" if query else path
        return URL(base.rstrip("/") + target, encoded=True)

    async def _ask(
        self, method: str, url: URL, fields: CIMultiDict[str], deadline: float
    ) -> aiohttp.ClientResponse:
        """The backend's answer as soon as its header is there."""
        try:
            async with asyncio.timeout_at(deadline):
                return await self._session.request(
                    "HEAD" if method == "HEAD" else "GET",
                    url,
                    headers=fields,
                    allow_redirects=False,
                    proxy=proxy_for(str(url.origin())),
                )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            words = self._upstream.reason or "it takes no connections: it is starting or has died"
            raise failure.unavailable(words) from error
        except TimeoutError:
            raise failure.slow(self._limits.first_byte_timeout_s) from None
        except aiohttp.ClientError as error:
            raise failure.broken() from error

    def _fields(self, request: web.Request, url: URL) -> CIMultiDict[str]:
        fields = request_fields(request.headers.items())
        if self._tenant_of is not None or url.user is not None:
            fields.popall("Authorization", None)  # meant for the gateway, or the URL has its own
        granted = self._tenant_of(request) if self._tenant_of is not None else ""
        named = fields.popall(TENANT_FIELD, [])
        try:
            tenant = tenant_asked(granted, named, self._upstream.default_tenant)
        except Refused as refused:
            raise failure.two_tenants(refused.message) from None
        if tenant:
            fields[TENANT_FIELD] = tenant
        return fields

    async def _relay(
        self, request: web.Request, answer: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        fields = response_fields(answer.headers.items())
        response = web.StreamResponse(status=answer.status, headers=fields)
        try:
            await response.prepare(request)
            while await self._pass_on_a_piece(answer, response):
                pass
        except aiohttp.ClientConnectionResetError:
            self._requests.series("client_left").value += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            self._note("cut", request.path, "the answer stopped half way", error)
            _reset(request)
        else:
            self._requests.series(str(answer.status)).value += 1
        return response

    async def _pass_on_a_piece(
        self, answer: aiohttp.ClientResponse, response: web.StreamResponse
    ) -> bool:
        """False at the end. Waits until the client has taken most of what it was sent before."""
        async with asyncio.timeout(self._limits.idle_timeout_s):
            if piece := await answer.content.readany():
                await response.write(piece)
            else:
                await response.write_eof()
            return bool(piece)

    def _note(self, code: str, path: str, why: str, cause: BaseException | None) -> None:
        self._requests.series(code).value += 1
        if code.startswith("4") or (quiet := self._throttle.ready(code)) is None:
            return
        told = facts(code=code, path=path, why=why, cause=cause and repr(cause), quiet=quiet)
        logger.warning("query failed", extra=told)


def _reset(request: web.Request) -> None:
    """End the client's connection by a reset, so that half an answer cannot pass for a whole one.

    Closing it would do for a client of HTTP/1.1; with HTTP/1.0 the close may be the only sign of
    an answer's end.
    """
    if (transport := request.transport) is None:
        return
    reset_on_close = struct.pack("ii", 1, 0)
    transport.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, reset_on_close
    )
    transport.abort()


def add_routes(
    app: web.Application,
    upstream: Upstream,
    metrics: Metrics,
    *,
    limits: Limits = _DEFAULT,
    tenant_of: TenantOf | None = None,
) -> None:
    """Answer what is under Tempo's API prefixes, with any method; what is not listed with 404.

    With ``tenant_of`` credentials are the gateway's own and stay here, and the tenant is its
    answer. Without it the gateway is open: both go on to the backend as the client sent them.
    """
    proxy = Proxy(upstream, metrics, limits, tenant_of)
    app.cleanup_ctx.append(proxy.life)
    for prefix in PREFIXES:
        app.router.add_route("*", f"{prefix}{{rest:.*}}", proxy.handle)
